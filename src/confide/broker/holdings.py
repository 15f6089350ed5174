# SPDX-License-Identifier: Apache-2.0
"""What the broker holds for its owners: secrets, policies and revocations, each as its owner signed it.

A row holds the owner's signed bytes, and whoever reads it checks the signature again: the database is not believed, and
neither is the code that once let the row in. An owner can only speak about names of his own, because every row's key
begins with his public key, which the signature fixes.

Specification: docs/spec/broker.md sections 3 and 5.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from confide.crypto.secret import Secret
from confide.errors import BrokerError, ConfideError, KeyRefused, NotGenuine
from confide.keys.signed_policy import (
    MAX_SECRET_BYTES,
    PutKey,
    Query,
    Revoke,
    SetPolicy,
    SignedStatement,
    Statement,
    commitment,
    verify,
)
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.broker.store import Store, Transaction
    from confide.keys.release import SecretName

__all__ = ["Held", "Holdings", "Policy"]

# An owner's client reads the whole list before it signs anything, so the longest list must fit one answer
# (``broker_messages.MAX_RESPONSE_BODY``): whoever could not list could not revoke.
MAX_PER_OWNER = {"secrets": 4096, "policies": 256, "revocations": 4096}

S = TypeVar("S", bound=Statement)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in force: the statement, its signed bytes and their digest."""

    statement: SetPolicy
    signed: SignedStatement = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed bytes."""
        return self.signed.digest


@dataclass(frozen=True, slots=True)
class Held:
    """A secret with what proves its origin to whoever receives it: the salt of its commitment and the signed statement."""

    secret: Secret = field(repr=False)
    salt: bytes = field(repr=False)
    signed: SignedStatement = field(repr=False)


class Holdings:
    """The statements in a store. ``owners`` are the Ed25519 public keys that may speak; None lets every key speak for itself."""

    def __init__(self, store: Store, owners: frozenset[bytes] | None) -> None:
        self._store = store
        self._owners = owners

    # -- what owners say

    def authorise(self, signed: SignedStatement, kind: type[S]) -> S:
        """The statement, if it is signed by an owner of this broker; ``broker.denied`` without a reason otherwise."""
        refused = KeyRefused(
            "denied",
            "this is not signed by an owner of this broker",
            hint="the owner's public key must be in the broker's measured configuration",
        )
        if self._owners is not None and signed.owner not in self._owners:
            raise refused
        try:
            return verify(signed, kind, store=self._store.name)
        except NotGenuine as error:
            if error.code == "not_genuine.identity_mismatch":
                raise
            raise refused from None

    def put(self, signed: SignedStatement, *, secret: Secret, salt: bytes) -> int:
        """Keep a secret; gives the number of the ledger record.

        Raises ``broker.conflict`` for a version that exists and for a serial that does not rise, ``broker.integrity`` if the
        secret is not the one that was signed for, ``broker.too_large`` beyond 64 KiB or the owner's quota.
        """
        statement = self.authorise(signed, PutKey)
        value = secret.reveal()
        if not 1 <= len(value) <= MAX_SECRET_BYTES:
            raise BrokerError("too_large", f"a secret has 1 to {MAX_SECRET_BYTES} bytes")
        if not hmac.compare_digest(commitment(salt, value), statement.commitment):
            raise BrokerError("integrity", "the secret is not the one that the statement was signed for")
        key = _secret_key(signed.owner, statement.secret)
        row = cbor.encode({"put": signed.data, "salt": salt, "secret": value})
        with self._store.transaction() as tx:
            old = tx.get("secrets", key)
            if old is not None:
                if hmac.compare_digest(old, row):
                    return tx.length  # The same request again, after an answer that was lost.
                raise BrokerError(
                    "conflict", "this version of the secret exists", hint="put the secret as a new version"
                )
            self._limit(tx, "secrets", signed.owner)
            self._rise(tx, statement)
            tx.put("secrets", key, row)
            tx.record(
                "put",
                signed.owner,
                {
                    "name": statement.secret.name,
                    "version": statement.secret.version,
                    "serial": statement.serial,
                    "statement": signed.digest,
                },
            )
        return tx.length

    def set_policy(self, signed: SignedStatement) -> int:
        """Put a policy in force in place of the tenant's older one; gives the number of the ledger record.

        Raises the policy's own errors where its text is not a policy for the tenant, ``broker.conflict`` for a serial that
        does not rise.
        """
        statement = self.authorise(signed, SetPolicy)
        statement.appraisal_policy  # noqa: B018 - parsed for its errors: a policy that does not read must not get in.
        key = (signed.owner, statement.tenant)
        row = cbor.encode({"policy": signed.data})
        with self._store.transaction() as tx:
            old = tx.get("policies", key)
            if old == row:
                return tx.length
            if old is None:
                self._limit(tx, "policies", signed.owner)
            self._rise(tx, statement)
            tx.put("policies", key, row)
            tx.record(
                "policy",
                signed.owner,
                {
                    "tenant": statement.tenant,
                    "secrets": [[s.name, s.version] for s in statement.secrets],
                    "lease_seconds": statement.lease_seconds,
                    "max_instances": statement.max_instances,
                    "serial": statement.serial,
                    "statement": signed.digest,
                },
            )
        return tx.length

    def revoke(self, signed: SignedStatement) -> int:
        """Take something back; when this returns, nothing is released against it any more, and never was after the
        record's number. Gives that number.
        """
        statement = self.authorise(signed, Revoke)
        row = cbor.encode({"revoke": signed.data})
        key: tuple[Any, ...]
        if statement.secret is not None:
            table, key = "secrets", _secret_key(signed.owner, statement.secret)
        elif statement.tenant is not None:
            table, key = "policies", (signed.owner, statement.tenant)
        else:
            value = statement.manifest if statement.measurement is None else statement.measurement
            table, key = "revocations", (signed.owner, statement.what, value)
        with self._store.transaction() as tx:
            old = tx.get(table, key)
            if old == row:
                return tx.length
            if old is None:
                # A name that was never put can be revoked as well: then it can never be put.
                self._limit(tx, table, signed.owner)
            elif table == "secrets" and not _read(old).has("put"):
                raise BrokerError("conflict", "this version of the secret is revoked already")
            self._rise(tx, statement)
            tx.put(table, key, row)
            tx.record(
                "revoke",
                signed.owner,
                {
                    "what": statement.what,
                    "subject": statement.subject,
                    **({"version": statement.secret.version} if statement.secret is not None else {}),
                    "serial": statement.serial,
                    "statement": signed.digest,
                },
            )
        return tx.length

    def overview(self, owner: bytes) -> dict[str, Any]:
        """What an owner has here, without a secret: ``secrets``, ``policies``, ``revocations`` and last ``serials``."""
        secrets: list[dict[str, Any]] = []
        policies: list[dict[str, Any]] = []
        revocations: list[dict[str, Any]] = []
        serials: dict[str, int] = {}
        with self._store.transaction() as tx:
            for row in tx.owned("secrets", owner):
                put, revoked = self._secret_statement(owner, row)
                name = put.secret if put is not None else revoked.secret if revoked is not None else None
                if name is not None:
                    secrets.append({"name": name.name, "version": name.version, "revoked": put is None})
            policies += [self._policy_overview(owner, row) for row in tx.owned("policies", owner)]
            for row in tx.owned("revocations", owner):
                statement = self._again(owner, _read(row).bytes_("revoke"), Revoke)
                value = statement.manifest if statement.measurement is None else statement.measurement
                revocations.append({"what": statement.what, "value": value, "serial": statement.serial})
            for row in tx.owned("subjects", owner):
                fields = _read(row)
                serials[fields.text("subject", 512)] = fields.integer("serial", 1, 2**53)
        secrets.sort(key=lambda s: (s["name"], s["version"]))
        policies.sort(key=lambda p: str(p["tenant"]))
        revocations.sort(key=lambda r: (r["what"], r["value"]))
        return {"secrets": secrets, "policies": policies, "revocations": revocations, "serials": serials}

    def _policy_overview(self, owner: bytes, row: bytes) -> dict[str, Any]:
        fields = _read(row)
        if not fields.has("policy"):
            revoked = self._again(owner, fields.bytes_("revoke"), Revoke)
            return {"tenant": revoked.tenant, "serial": revoked.serial, "revoked": True}
        signed = SignedStatement(owner, fields.bytes_("policy"))
        statement = self._again(owner, signed.data, SetPolicy)
        return {
            "tenant": statement.tenant,
            "serial": statement.serial,
            "revoked": False,
            "secrets": [[s.name, s.version] for s in statement.secrets],
            "appraisal": statement.appraisal,
            "lease_seconds": statement.lease_seconds,
            "max_instances": statement.max_instances,
            "statement": signed.digest,
        }

    # -- what a release needs to know

    def policy(self, tx: Transaction, owner: bytes, tenant: str) -> Policy | None:
        """The policy in force for an owner's tenant; None if there is none or it was revoked."""
        row = tx.get("policies", (owner, tenant))
        if row is None:
            return None
        fields = _read(row)
        if not fields.has("policy"):
            self._again(owner, fields.bytes_("revoke"), Revoke)
            return None
        signed = SignedStatement(owner, fields.bytes_("policy"))
        fields.end()
        statement = self._again(owner, signed.data, SetPolicy)
        if statement.tenant != tenant:
            raise BrokerError("integrity", "a policy stands in another tenant's place")
        return Policy(statement, signed)

    def secret(self, tx: Transaction, owner: bytes, name: SecretName) -> Held | None:
        """A secret and its owner's statement, exactly as its owner signed for it; None if it was never put or was revoked."""
        row = tx.get("secrets", _secret_key(owner, name))
        if row is None:
            return None
        fields = _read(row)
        if not fields.has("put"):
            return None
        signed = SignedStatement(owner, fields.bytes_("put"))
        statement = self._again(owner, signed.data, PutKey)
        value = fields.bytes_("secret", max_length=MAX_SECRET_BYTES)
        salt = fields.bytes_("salt", 32)
        fields.end()
        if statement.secret != name or not hmac.compare_digest(commitment(salt, value), statement.commitment):
            raise BrokerError("integrity", "a stored secret is not the one that its owner signed for")
        return Held(Secret(value), salt, signed)

    def has_secret(self, tx: Transaction, owner: bytes, name: SecretName) -> bool:
        """Whether a version is there and not revoked."""
        row = tx.get("secrets", _secret_key(owner, name))
        return row is not None and _read(row).has("put")

    def is_revoked(self, tx: Transaction, owner: bytes, what: str, value: bytes) -> bool:
        """Whether the owner has revoked a ``measurement`` or ``manifest``. Any row in that place is a revocation: a
        statement that can no longer be read must not make it good again.
        """
        return tx.get("revocations", (owner, what, value)) is not None

    def admit_instance(self, tx: Transaction, policy: Policy, instance: bytes) -> bool:
        """Count an enclave instance against the policy's limit; False if it is one too many. Staged in ``tx``."""
        limit = policy.statement.max_instances
        if limit == 0:
            return True
        key = (policy.signed.owner, policy.digest)
        row = tx.get("grants", key)
        known: list[bytes] = [] if row is None else list(_read(row).list_("instances"))
        if instance in known:
            return True
        if len(known) >= limit:
            return False
        tx.put("grants", key, cbor.encode({"instances": [*known, instance]}))
        return True

    # -- inside

    def _again(self, owner: bytes, data: bytes, kind: type[S]) -> S:
        try:
            return verify(SignedStatement(owner, data), kind, store=self._store.name)
        except ConfideError as error:
            raise BrokerError("integrity", "a stored statement is not signed by its owner") from error

    def _secret_statement(self, owner: bytes, row: bytes) -> tuple[PutKey | None, Revoke | None]:
        fields = _read(row)
        if fields.has("put"):
            return self._again(owner, fields.bytes_("put"), PutKey), None
        return None, self._again(owner, fields.bytes_("revoke"), Revoke)

    def _rise(self, tx: Transaction, statement: Statement) -> None:
        key = (statement.owner, statement.subject)
        row = tx.get("subjects", key)
        last = 0 if row is None else _read(row).integer("serial", 1, 2**53)
        if statement.serial <= last:
            raise BrokerError(
                "conflict",
                "the serial of the statement does not rise",
                hint="list what the broker has, and sign with the next serial of this subject",
            )
        tx.put("subjects", key, cbor.encode({"serial": statement.serial, "subject": statement.subject}))

    def _limit(self, tx: Transaction, table: str, owner: bytes) -> None:
        if tx.count(table, owner) >= MAX_PER_OWNER[table]:
            raise BrokerError("too_large", "the owner has as many entries as one may have")

    def query(self, signed: SignedStatement, what: str, challenge: bytes) -> None:
        """Check that an owner asks this, now; ``broker.denied`` otherwise."""
        statement = self.authorise(signed, Query)
        if statement.what != what or not hmac.compare_digest(statement.challenge, challenge):
            raise KeyRefused("denied", "the query was signed for something else")

    def audit(self, owner: bytes, start: int, count: int) -> Iterator[bytes | list[bytes]]:
        """The ledger as an owner may see it: own and common records as ``[salt, body]``, others as their leaf."""
        from confide.broker.records import leaf_of

        for record in self._store.records(start, count):
            if record.owner in {owner, b""}:
                yield [record.salt, record.body]
            else:
                yield leaf_of(record)


def _secret_key(owner: bytes, name: SecretName) -> tuple[bytes, str, int]:
    return owner, name.name, name.version


def _read(row: bytes) -> Fields:
    return Fields(cbor.decode(row, what="broker row", max_size=256 * 1024), "broker row")
