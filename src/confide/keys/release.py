# SPDX-License-Identifier: Apache-2.0
"""The messages of the release protocol and what the releasing side does with them (``docs/spec/release.md``).

    request = Challenges(...).issue(tenant, names)       the releaser asks for evidence over a nonce of its own
    admission = admit(evidence, request, ...)            verified: a fact that nothing else can build
    answer = wrap(admission, secrets, ...)               encrypted to the attested key, once

A broker commits its audit record between ``admit`` and ``wrap``; whoever has none uses ``release``, which is both. The
receiving side is ``confide.keys.receiver``.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from confide.crypto import hpke
from confide.errors import BrokerError, ConfigurationError, MalformedError, NotAcceptable
from confide.sealing.names import MAX_NAME, MAX_VERSION, is_name, is_version
from confide.wire import cbor
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from confide.attestation.evidence import Evidence
    from confide.attestation.result import AttestationResult
    from confide.attestation.verifier import Verifier
    from confide.crypto.secret import Secret
    from confide.crypto.signing import SigningKey

__all__ = [
    "ANSWER_PATH",
    "CHALLENGE_BYTES",
    "CONTENT_TYPE",
    "DEFAULT_LEASE",
    "EVIDENCE_TYPE",
    "MAX_ANSWER",
    "MAX_REQUEST",
    "PURPOSE",
    "REQUEST_PATH",
    "Admission",
    "ReleaseRequest",
    "SecretName",
    "Wrapped",
    "admit",
    "owner_audience",
    "release",
    "wrap",
]

PURPOSE: Final = "release"
REQUEST_PATH: Final = "/.well-known/confide/release"
ANSWER_PATH: Final = "/confide/release"
CONTENT_TYPE: Final = "application/confide-release"
EVIDENCE_TYPE: Final = "application/confide-evidence"
CHALLENGE_BYTES: Final = 32
MAX_SECRETS: Final = 32
MAX_SECRET: Final = 64 * 1024
MAX_REQUEST: Final = 16 * 1024
MAX_ANSWER: Final = 300 * 1024
MAX_PLAINTEXT: Final = 256 * 1024
MAX_LEASE: Final = 30 * 24 * 3600
DEFAULT_LEASE: Final = 3600
_PAD: Final = 1024
_NONCE_LABEL = b"confide/release-challenge/1"
_INFO_LABEL = b"confide/1 release\x00"
_ANSWER_LABEL = b"confide/1 release answer\x00"
_ACCEPTED_LABEL = b"confide/1 release accepted\x00"


def owner_audience(owner_public: bytes) -> str:
    """The audience that names an owner: all 64 digits of the SHA-256 of the 32-byte Ed25519 public key."""
    if len(owner_public) != 32:
        raise MalformedError("length_mismatch", "an owner's public key has 32 bytes")
    return "owner:" + hashlib.sha256(owner_public).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class SecretName:
    """One version of one named secret. Raises ``broker.name_invalid`` for anything outside the grammar."""

    name: str
    version: int

    def __post_init__(self) -> None:
        if not is_name(self.name) or not is_version(self.version):
            raise BrokerError(
                "name_invalid",
                "a secret's name or version is outside the grammar",
                hint=f"a name is up to {MAX_NAME} of A-Z a-z 0-9 . _ -, a version is 1 to {MAX_VERSION}",
            )


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What a releaser asks evidence for: ``tenant`` (the measured id of the service), the secrets (sorted, 1 to 32, no name
    twice) and 32 random bytes of the releaser's own.
    """

    tenant: str
    secrets: tuple[SecretName, ...]
    challenge: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.tenant, str) or not 1 <= len(self.tenant.encode("utf-8", "replace")) <= 256:
            raise MalformedError("limit_exceeded", "the tenant in a release request is not a short text")
        if not isinstance(self.challenge, bytes) or len(self.challenge) != CHALLENGE_BYTES:
            raise MalformedError("length_mismatch", "the challenge in a release request is not 32 bytes")
        if not 1 <= len(self.secrets) <= MAX_SECRETS:
            raise MalformedError("limit_exceeded", f"a release request names 1 to {MAX_SECRETS} secrets")
        if list(self.secrets) != sorted(self.secrets) or len({s.name for s in self.secrets}) != len(
            self.secrets
        ):
            raise MalformedError(
                "non_canonical", "the secrets in a release request are not sorted and distinct"
            )

    @classmethod
    def new(cls, tenant: str, secrets: Iterable[SecretName], challenge: bytes) -> Self:
        """A request for ``secrets`` in any order."""
        return cls(tenant, tuple(sorted(secrets)), challenge)

    @property
    def nonce(self) -> bytes:
        """The 32 bytes that the receiver attests: a hash over all of this, every part with its length in front."""
        digest = hashlib.sha256()
        for part in (_NONCE_LABEL, self.challenge, self.tenant.encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update(len(self.secrets).to_bytes(4, "big"))
        for secret in self.secrets:
            name = secret.name.encode()
            digest.update(len(name).to_bytes(4, "big") + name + secret.version.to_bytes(8, "big"))
        return digest.digest()

    def encode(self) -> bytes:
        """The request as deterministic CBOR (message 1)."""
        return cbor.encode(
            {
                "v": 1,
                "tenant": self.tenant,
                "challenge": self.challenge,
                "secrets": [[s.name, s.version] for s in self.secrets],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a request; ``malformed`` for anything but the one encoding, ``broker.name_invalid`` for a bad name."""
        what = "release request"
        fields = _fields(data, what, MAX_REQUEST)
        tenant = fields.text("tenant", 256)
        challenge = fields.bytes_("challenge", CHALLENGE_BYTES)
        names = [SecretName(*_row(row, what, str, int)) for row in _bounded(fields.list_("secrets"), what)]
        fields.end()
        return cls(tenant, tuple(names), challenge)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The answer (message 3): for which key and nonce, the HPKE ciphertext, and the owner's signature (64 bytes) where
    the releaser is an owner.
    """

    kid: bytes
    nonce: bytes
    wrap: bytes = field(repr=False)
    signature: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """The answer as deterministic CBOR."""
        body: dict[str, object] = {"v": 1, "kid": self.kid, "nonce": self.nonce, "wrap": self.wrap}
        if self.signature is not None:
            body["signature"] = self.signature
        return cbor.encode(body)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read an answer; ``malformed`` for anything but the one encoding."""
        fields = _fields(data, "release answer", MAX_ANSWER)
        answer = cls(
            kid=fields.bytes_("kid", 32),
            nonce=fields.bytes_("nonce", 32),
            wrap=fields.bytes_("wrap", max_length=MAX_PLAINTEXT + hpke.OVERHEAD),
            signature=fields.bytes_("signature", 64, default=None),
        )
        fields.end()
        return answer

    @property
    def signed_message(self) -> bytes:
        """What the owner signs."""
        return _ANSWER_LABEL + self.kid + self.nonce + hashlib.sha256(self.wrap).digest()

    @property
    def accepted_message(self) -> bytes:
        """What the receiver signs once it holds the secrets (message 4)."""
        return _ACCEPTED_LABEL + self.kid + self.nonce + hashlib.sha256(self.wrap).digest()


class Admission:
    """Evidence that was verified for one request: what ``wrap`` encrypts to, once.

    Only ``admit`` makes one. ``result`` is the Verifier's; ``request`` what was asked for.
    """

    __slots__ = ("_lock", "_spent", "request", "result")

    def __init__(self, result: AttestationResult, request: ReleaseRequest, *, token: object) -> None:
        if token is not _TOKEN:
            raise ConfigurationError(
                "invalid", "an Admission is made by `admit` only", hint="verify evidence with `admit`"
            )
        self.result = result
        self.request = request
        self._spent = False
        self._lock = threading.Lock()

    def spend(self) -> None:
        """Use this admission up; ``not_acceptable.nonce_reused`` the second time."""
        with self._lock:
            if self._spent:
                raise NotAcceptable(
                    "nonce_reused", "this admission has already led to a release", stage="release"
                )
            self._spent = True


_TOKEN: Final = object()


def admit(
    evidence: Evidence | bytes,
    request: ReleaseRequest,
    *,
    verifier: Verifier,
    audience: str,
    at: datetime,
    age: timedelta | None = None,
) -> Admission:
    """Verify ``evidence`` for ``request``, on the releaser's clock.

    ``at`` is aware UTC; ``age`` is what passed on the releaser's own clock since the challenge left. Steps: 1 the whole of
    ``Verifier.verify`` with purpose "release", this audience and this request's nonce; 2 the key, freshness, purpose and audience
    of the result once more, so that a release never rests on one comparison; 3 the attested service id is the tenant.
    The caller sees to it that a challenge is presented once (``confide.keys.challenges``).
    """
    result = verifier.verify(
        evidence, at=at, nonce=request.nonce, age=age, purpose=PURPOSE, audience=audience
    )  # (1)
    material = result.key_material
    if material is None or result.kid is None:  # (2)
        raise NotAcceptable("channel", "the evidence vouches for no key", stage="release")
    if result.freshness != "fresh":
        raise NotAcceptable("nonce_missing", "the evidence does not answer the challenge", stage="release")
    if material.purpose != PURPOSE or material.audience != audience:
        raise NotAcceptable("purpose", "the evidence was made for another purpose or party", stage="release")
    if material.service.id != request.tenant:  # (3)
        raise NotAcceptable(
            "identity",
            "the evidence is of another tenant's enclave",
            hint="compare the `id` of the service with the tenant that the secret belongs to",
            stage="release",
        )
    return Admission(result, request, token=_TOKEN)


def wrap(
    admission: Admission,
    secrets: Mapping[SecretName, Secret],
    *,
    lease: int = DEFAULT_LEASE,
    signer: SigningKey | None = None,
) -> Wrapped:
    """Encrypt exactly the secrets that the admitted request names to its attested key. One admission, one answer.

    ``lease`` is in seconds, at most 30 days; 0 means until the enclave ends. ``signer`` is the owner's key where the releaser
    is an owner. Raises ``broker.not_found`` if a secret is missing, ``not_acceptable.nonce_reused`` the second time.
    """
    material, kid = admission.result.key_material, admission.result.kid
    if material is None or kid is None:
        raise NotAcceptable("channel", "the evidence vouches for no key", stage="release")
    if type(lease) is not int or not 0 <= lease <= MAX_LEASE:
        raise ConfigurationError("invalid", f"a lease is 0 to {MAX_LEASE} seconds")
    rows: list[list[object]] = []
    for name in admission.request.secrets:
        secret = secrets.get(name)
        if secret is None:
            raise BrokerError("not_found", "a secret that was asked for is not here")
        value = secret.reveal()
        if not 1 <= len(value) <= MAX_SECRET:
            raise BrokerError("too_large", f"a secret has 1 to {MAX_SECRET} bytes")
        rows.append([name.name, name.version, value])
    content = cbor.encode({"v": 1, "lease": lease, "secrets": rows})
    if len(content) > MAX_PLAINTEXT - _PAD:
        raise BrokerError("too_large", "these secrets do not fit one release")
    plaintext = len(content).to_bytes(4, "big") + content
    plaintext += bytes(-len(plaintext) % _PAD)
    admission.spend()
    nonce = admission.request.nonce
    answer = Wrapped(kid, nonce, hpke.seal(material.key, hpke_info(kid, nonce), plaintext))
    if signer is None:
        return answer
    return Wrapped(answer.kid, answer.nonce, answer.wrap, signer.sign(answer.signed_message))


def release(
    evidence: Evidence | bytes,
    request: ReleaseRequest,
    secrets: Mapping[SecretName, Secret],
    *,
    verifier: Verifier,
    audience: str,
    at: datetime,
    age: timedelta | None = None,
    lease: int = DEFAULT_LEASE,
    signer: SigningKey | None = None,
) -> Wrapped:
    """``admit`` and ``wrap`` in one step, for a releaser that keeps no audit log."""
    admission = admit(evidence, request, verifier=verifier, audience=audience, at=at, age=age)
    return wrap(admission, secrets, lease=lease, signer=signer)


def hpke_info(kid: bytes, nonce: bytes) -> bytes:
    """The HPKE info of a wrap: kid and nonce have fixed lengths, and the nonce covers challenge, tenant and names."""
    return _INFO_LABEL + kid + nonce


def read_plaintext(plaintext: bytes) -> tuple[int, list[tuple[SecretName, bytes]]]:
    """The lease and the secrets in an opened wrap; ``malformed`` if its padding or content is not as specified."""
    what = "released secrets"
    if len(plaintext) % _PAD or len(plaintext) < _PAD:
        raise MalformedError("length_mismatch", f"{what}: not padded to {_PAD} bytes")
    length = int.from_bytes(plaintext[:4], "big")
    if length > len(plaintext) - 4 or len(plaintext) - 4 - length >= _PAD:
        raise MalformedError("length_mismatch", f"{what}: the length does not fit")
    if any(plaintext[4 + length :]):
        raise MalformedError("reserved_not_zero", f"{what}: the padding is not zero")
    fields = _fields(plaintext[4 : 4 + length], what, MAX_PLAINTEXT)
    lease = fields.integer("lease", 0, MAX_LEASE)
    rows = []
    for row in _bounded(fields.list_("secrets"), what):
        name, version, value = _row(row, what, str, int, bytes)
        if not 1 <= len(value) <= MAX_SECRET:
            raise MalformedError("limit_exceeded", f"{what}: a secret is empty or too long")
        rows.append((SecretName(name, version), value))
    fields.end()
    return lease, rows


def _fields(data: bytes, what: str, max_size: int) -> Fields:
    fields = Fields(cbor.decode(data, what=what, max_size=max_size, max_depth=4), what)
    if fields.integer("v", 0, MAX_VERSION) != 1:
        raise MalformedError("unsupported_version", f"{what}: a version that is not supported")
    return fields


def _bounded(rows: list[Any], what: str) -> list[Any]:
    if not 1 <= len(rows) <= MAX_SECRETS:
        raise MalformedError("limit_exceeded", f"{what}: not 1 to {MAX_SECRETS} secrets")
    return rows


def _row(row: object, what: str, *types: type) -> list[Any]:
    if not isinstance(row, list) or [type(cell) for cell in row] != list(types):
        raise MalformedError("non_canonical", f"{what}: a secret's row has another form")
    return row
