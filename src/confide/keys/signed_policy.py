# SPDX-License-Identifier: Apache-2.0
"""What an owner tells a broker, in statements that the owner has signed.

A statement is deterministic CBOR in a COSE_Sign1 (RFC 9052 section 4.2) under the owner's Ed25519 key. The broker keeps
the signed bytes and checks them again at every use, because its database is not trusted. Four things make a statement
good for one purpose only:

- the external AAD names this protocol, its version and the kind of statement, so that a signature over a policy can
  never be read as a revocation, nor any other COSE document of this project as either;
- ``store`` is the random name that a broker's store took when it was made, so that a statement cannot be replayed to
  another broker, nor to the same broker after its database was thrown away;
- ``owner`` repeats the signer's public key inside the signature (Ed25519 alone does not bind a signature to one key);
- ``serial`` rises strictly for each owner and subject, so that an older policy cannot replace a newer one.

Names are scoped by their owner: two owners may both call a key ``weights``, and neither can reach the other's.

Specification: docs/spec/broker.md section 3.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from confide.attestation.policy import AppraisalPolicy
from confide.crypto import cose
from confide.errors import BrokerError, ConfideError, ConfigurationError, MalformedError, NotGenuine
from confide.keys.release import SecretName
from confide.sealing.names import is_name
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from confide.crypto.signing import SigningKey

__all__ = [
    "MAX_LEASE_SECONDS",
    "MAX_POLICY_BYTES",
    "MAX_SECRETS",
    "MAX_SECRET_BYTES",
    "MAX_STATEMENT_BYTES",
    "PutKey",
    "Query",
    "Revoke",
    "SetPolicy",
    "SignedStatement",
    "Statement",
    "check_name",
    "check_origin",
    "commitment",
    "sign",
    "verify",
]

OWNER_BYTES = 32
STORE_BYTES = 16
SALT_BYTES = 32
COMMITMENT_BYTES = 64
MAX_SERIAL = 2**53 - 1
MAX_SECRETS = 64
MAX_SECRET_BYTES = 64 * 1024
MAX_POLICY_BYTES = 32 * 1024
MAX_STATEMENT_BYTES = 64 * 1024
MAX_LEASE_SECONDS = 24 * 3600
MAX_INSTANCES = 1024
MIN_MEASUREMENT_BYTES = 16
MAX_MEASUREMENT_BYTES = 64

_VERSION = 1


def check_name(name: object, what: str = "name") -> str:
    """Return ``name`` if it follows the one grammar of names (docs/spec/release.md section 1); raise
    ``broker.name_invalid`` otherwise. There is no normalisation of any kind.
    """
    if not isinstance(name, str) or not is_name(name):
        raise BrokerError(
            "name_invalid",
            f"the {what} is outside the grammar",
            hint="use 1 to 128 ASCII letters, digits, '.', '_' or '-', with a letter or digit at both ends",
        )
    return name


def commitment(salt: bytes, secret: bytes) -> bytes:
    """The 64 bytes by which an owner's signature fixes a secret without telling it.

    The salt is 32 random bytes that are kept as secret as the secret itself, so that even a secret which can be guessed
    cannot be confirmed from the statement.
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError("length_mismatch", "the salt of a commitment is not 32 bytes")
    return hmac.new(salt, b"confide/broker/secret/1\x00" + secret, hashlib.sha512).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(ABC):
    """What every statement says: who, to which store, and which in the row of statements about its subject."""

    kind: ClassVar[str]

    owner: bytes
    store: bytes
    serial: int

    @property
    @abstractmethod
    def subject(self) -> str:
        """What the statement is about; serials rise strictly per owner and subject."""

    @abstractmethod
    def _body(self) -> dict[str, Any]:
        """What this kind of statement says further."""

    @classmethod
    @abstractmethod
    def _from_body(cls, head: _Head, fields: Fields) -> Self:
        """Read what ``_body`` gives."""

    def encode(self) -> bytes:
        """Deterministic CBOR of the statement, the payload that is signed."""
        return cbor.encode(
            {
                "v": _VERSION,
                "kind": self.kind,
                "owner": self.owner,
                "store": self.store,
                "serial": self.serial,
                **self._body(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a payload of exactly this kind of statement; every value is checked, unknown keys are refused."""
        value = cbor.decode(data, what=f"{cls.kind} statement", max_size=MAX_STATEMENT_BYTES)
        if not isinstance(value, Mapping):
            raise MalformedError("non_canonical", f"a {cls.kind} statement is not a map")
        fields = Fields(value, f"{cls.kind} statement")
        if fields.integer("v", 0, 2**32) != _VERSION:
            raise MalformedError("unsupported_version", f"a {cls.kind} statement has an unknown version")
        if fields.text("kind", max_length=16) != cls.kind:
            raise MalformedError("unknown_format", f"a statement is not of the kind {cls.kind}")
        head = _Head(
            fields.bytes_("owner", length=OWNER_BYTES),
            fields.bytes_("store", length=STORE_BYTES),
            fields.integer("serial", 1, MAX_SERIAL),
        )
        statement = cls._from_body(head, fields)
        fields.end()
        return statement


@dataclass(frozen=True, slots=True)
class _Head:
    owner: bytes
    store: bytes
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutKey(Statement):
    """Store a secret under a name and version. The secret itself travels beside the statement, in the envelope."""

    kind: ClassVar[str] = "put"

    secret: SecretName
    commitment: bytes

    @property
    def subject(self) -> str:
        """The name, so that the serials of all its versions rise together."""
        return f"key/{self.secret.name}"

    def _body(self) -> dict[str, Any]:
        return {
            "name": self.secret.name,
            "version": self.secret.version,
            "commitment": self.commitment,
        }

    @classmethod
    def _from_body(cls, head: _Head, fields: Fields) -> Self:
        return cls(
            owner=head.owner,
            store=head.store,
            serial=head.serial,
            secret=_read_secret(fields),
            commitment=fields.bytes_("commitment", length=COMMITMENT_BYTES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPolicy(Statement):
    """Which secrets an enclave of a tenant may have, and what it must prove for them.

    ``appraisal`` is the exact TOML of an AppraisalPolicy, which must have a ``[service]`` table whose ``id`` is the
    tenant. ``lease_seconds`` is how long a released secret may be used. ``max_instances`` is how many distinct enclave
    instances may ever receive a secret under this statement; 0 is no limit.
    """

    kind: ClassVar[str] = "policy"

    tenant: str
    secrets: tuple[SecretName, ...]
    appraisal: bytes
    lease_seconds: int
    max_instances: int = 0

    @property
    def subject(self) -> str:
        """The tenant: one policy at a time is in force for it."""
        return f"policy/{self.tenant}"

    @property
    def appraisal_policy(self) -> AppraisalPolicy:
        """The parsed policy; raises ``configuration`` errors if the text is not a policy for the tenant."""
        policy = AppraisalPolicy.from_toml(self.appraisal)
        if policy.service is None:
            raise ConfigurationError(
                "invalid",
                "the policy of a release has no [service] table",
                hint="write the policy with `confide measure`, which adds kind, manifest and id",
            )
        if policy.service.id != self.tenant:
            raise ConfigurationError(
                "invalid",
                "the [service] id of the policy is not the tenant that the statement names",
                hint="a policy releases to the service whose id is the tenant; state the same id in both places",
            )
        return policy

    def _body(self) -> dict[str, Any]:
        check_name(self.tenant, "tenant")
        _check_secrets(self.secrets)
        return {
            "tenant": self.tenant,
            "secrets": [[secret.name, secret.version] for secret in self.secrets],
            "appraisal": self.appraisal,
            "lease_seconds": self.lease_seconds,
            "max_instances": self.max_instances,
        }

    @classmethod
    def _from_body(cls, head: _Head, fields: Fields) -> Self:
        return cls(
            owner=head.owner,
            store=head.store,
            serial=head.serial,
            tenant=_read_name(fields, "tenant"),
            secrets=read_secrets(fields.list_("secrets")),
            appraisal=fields.bytes_("appraisal", max_length=MAX_POLICY_BYTES),
            lease_seconds=fields.integer("lease_seconds", 1, MAX_LEASE_SECONDS),
            max_instances=fields.integer("max_instances", 0, MAX_INSTANCES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Statement):
    """Take back a version of a key, a policy, a platform measurement or a manifest.

    Exactly one of: ``secret``, ``tenant`` (the policy for it), ``measurement`` (16 to 64 bytes, as any TEE reports it) and
    ``manifest`` (32 bytes). Keys, measurements and manifests are revoked for good; a policy may be followed by a
    newer one. A measurement or manifest is revoked for the owner's secrets only.
    """

    kind: ClassVar[str] = "revoke"

    secret: SecretName | None = None
    tenant: str | None = None
    measurement: bytes | None = None
    manifest: bytes | None = None

    def __post_init__(self) -> None:
        if [self.secret, self.tenant, self.measurement, self.manifest].count(None) != 3:
            raise ConfigurationError("invalid", "a revocation names exactly one thing")

    @property
    def what(self) -> str:
        """``key``, ``policy``, ``measurement`` or ``manifest``."""
        return self.subject.partition("/")[0]

    @property
    def subject(self) -> str:
        """The subject of what is taken back, so that a policy and its revocation are in one row."""
        if self.secret is not None:
            return f"key/{self.secret.name}"
        if self.tenant is not None:
            return f"policy/{self.tenant}"
        if self.measurement is not None:
            return f"measurement/{self.measurement.hex()}"
        return f"manifest/{(self.manifest or b'').hex()}"

    def _body(self) -> dict[str, Any]:
        if self.secret is not None:
            return {"what": "key", "name": self.secret.name, "version": self.secret.version}
        if self.tenant is not None:
            return {"what": "policy", "tenant": check_name(self.tenant, "tenant")}
        return {"what": self.what, "value": self.manifest if self.measurement is None else self.measurement}

    @classmethod
    def _from_body(cls, head: _Head, fields: Fields) -> Self:
        secret = tenant = measurement = manifest = None
        match fields.text("what", max_length=16):
            case "key":
                secret = _read_secret(fields)
            case "policy":
                tenant = _read_name(fields, "tenant")
            case "measurement":
                measurement = fields.bytes_("value", max_length=MAX_MEASUREMENT_BYTES)
                if len(measurement) < MIN_MEASUREMENT_BYTES:
                    raise MalformedError("length_mismatch", "a revoked measurement is too short")
            case "manifest":
                manifest = fields.bytes_("value", length=32)
            case _:
                raise MalformedError("unknown_format", "a revocation names an unknown kind of thing")
        return cls(
            owner=head.owner,
            store=head.store,
            serial=head.serial,
            secret=secret,
            tenant=tenant,
            measurement=measurement,
            manifest=manifest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query(Statement):
    """Ask for one's own names (``list``) or audit records (``audit``). ``challenge`` is the broker's, used once; the
    serial of a query is always 1, since the challenge already makes it new.
    """

    kind: ClassVar[str] = "query"

    what: str
    challenge: bytes

    @property
    def subject(self) -> str:
        """What is asked for."""
        return f"query/{self.what}"

    def _body(self) -> dict[str, Any]:
        return {"what": self.what, "challenge": self.challenge}

    @classmethod
    def _from_body(cls, head: _Head, fields: Fields) -> Self:
        what = fields.text("what", max_length=16)
        if what not in {"list", "audit"}:
            raise MalformedError("unknown_format", "a query asks for something unknown")
        return cls(
            owner=head.owner,
            store=head.store,
            serial=head.serial,
            what=what,
            challenge=fields.bytes_("challenge", length=32),
        )


def _read_name(fields: Fields, key: str) -> str:
    try:
        name = fields.text(key, MAX_STATEMENT_BYTES)
    except MalformedError:
        name = ""
    return check_name(name, key)


def _read_secret(fields: Fields) -> SecretName:
    return SecretName(_read_name(fields, "name"), fields.integer("version", -(2**63), 2**64 - 1))


def read_secrets(items: object) -> tuple[SecretName, ...]:
    """Read a list of ``[name, version]`` pairs: 1 to 64, strictly ascending, hence without duplicates."""
    if not isinstance(items, list) or not all(isinstance(x, list) and len(x) == 2 for x in items):
        raise MalformedError("non_canonical", "the secrets are not a list of pairs of name and version")
    secrets = tuple(SecretName(*item) for item in items[: MAX_SECRETS + 1])
    _check_secrets(secrets)
    return secrets


def _check_secrets(secrets: tuple[SecretName, ...]) -> None:
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise MalformedError("limit_exceeded", f"the number of secrets is not from 1 to {MAX_SECRETS}")
    if list(secrets) != sorted(set(secrets)):
        raise MalformedError("non_canonical", "the secrets are not in strictly ascending order")


S = TypeVar("S", bound=Statement)


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """The exact COSE_Sign1 bytes and the public key (32 bytes) that they are said to be signed with."""

    owner: bytes
    data: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed bytes; audit records name a statement by it."""
        return hashlib.sha256(self.data).digest()

    def to_value(self) -> Any:
        """As a CBOR value: ``[owner, COSE_Sign1]``."""
        return [self.owner, self.data]

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Read ``[owner, COSE_Sign1]``; nothing has been verified then."""
        if not isinstance(value, list) or len(value) != 2:
            raise MalformedError("non_canonical", "a signed statement is not a pair of owner and COSE_Sign1")
        owner, data = value
        if not isinstance(owner, bytes) or len(owner) != OWNER_BYTES:
            raise MalformedError("length_mismatch", "the owner of a statement is not 32 bytes")
        if not isinstance(data, bytes) or not 0 < len(data) <= MAX_STATEMENT_BYTES:
            raise MalformedError("limit_exceeded", "a signed statement is empty or too large")
        return cls(owner, data)


def sign(statement: Statement, key: SigningKey) -> SignedStatement:
    """Sign a statement with its owner's key."""
    if statement.owner != key.public:
        raise ConfigurationError("invalid", "a statement can only be signed by the owner that it names")
    payload = statement.encode()
    type(statement).decode(payload)  # What the broker would refuse is refused before it is signed.
    return SignedStatement(key.public, cose.sign1(key, payload, external_aad=_aad(statement.kind)))


def verify(signed: SignedStatement, kind: type[S], *, store: bytes | None) -> S:
    """Check the signature, then read the statement; it is of exactly the kind asked for and for exactly this store.
    ``store=None`` is for whoever has no store to compare with, and learns from the statement only what its owner said.

    Raises ``not_genuine.bad_signature`` for anything not signed by ``signed.owner`` as this kind of statement,
    ``not_genuine.identity_mismatch`` for another owner or store inside, ``malformed`` or ``broker.name_invalid`` for
    what does not read.
    """
    payload = cose.verify1(signed.data, signed.owner, external_aad=_aad(kind.kind))
    statement = kind.decode(payload)
    if not hmac.compare_digest(statement.owner, signed.owner):
        raise NotGenuine("identity_mismatch", "a statement names another owner than the one who signed it")
    if store is not None and not hmac.compare_digest(statement.store, store):
        raise NotGenuine(
            "identity_mismatch",
            "a statement was signed for another broker's store",
            hint="ask the broker for the name of its store and sign again; a store that was made anew has a new name",
        )
    return statement


def check_origin(
    signed: SignedStatement, salt: bytes, secret: SecretName, value: bytes, *, owner: bytes
) -> None:
    """Check that ``owner`` signed for exactly this value under this name and version.

    An enclave calls this for what a broker released to it: so not even a broker can give it a secret of its own choice
    under an owner's name. Raises ``broker.integrity``.
    """
    try:
        statement = verify(signed, PutKey, store=None)
    except ConfideError:
        statement = None
    if (
        statement is None
        or not hmac.compare_digest(statement.owner, owner)
        or statement.secret != secret
        or not hmac.compare_digest(commitment(salt, value), statement.commitment)
    ):
        raise BrokerError("integrity", "a released secret is not the one that its owner signed for")


def _aad(kind: str) -> bytes:
    return b"confide/broker/statement/1\x00" + kind.encode("ascii")
