# SPDX-License-Identifier: Apache-2.0
"""The decision to release a secret, in the only order that is safe.

1. The challenge is spent, whatever follows.
2. The owner's policy for the tenant is read, and the evidence is verified under it: purpose "release", this broker as
   audience, the nonce over challenge, tenant, names and versions. Where there is no such policy, the same evidence is
   verified under one that admits nothing, so that the answer is the same and what takes long in it, too.
3. One transaction, with every other one kept out: the policy is still the very same statement, nothing that the evidence
   shows is revoked, every secret is there as its owner signed for it, and this instance is within the policy's limit; the
   audit record is appended and committed to the disk.
4. Only then the secrets are wrapped to the attested key, still inside the hold: once a revocation has returned, no wrap
   of what it revokes is made any more.

Whoever is refused learns one thing, `broker.denied`. The owner finds the reason in the audit log.

Specification: docs/spec/broker.md section 4; docs/spec/release.md for the messages.
"""

from __future__ import annotations

import functools
import hmac
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from confide.attestation import schemes
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.errors import BrokerError, ConfideError, KeyRefused, NotAcceptable
from confide.keys.release import Admission, ReleaseRequest, SecretName, Wrapped, admit, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confide.attestation.anchors import TrustAnchor
    from confide.broker.challenges import StatelessChallenges
    from confide.broker.holdings import Held, Holdings, Policy
    from confide.broker.limits import Buckets
    from confide.broker.store import Store, Transaction
    from confide.keys.broker_messages import Wanted
    from confide.keys.signed_policy import SignedStatement

__all__ = ["Granted", "Releaser"]

MAX_WAITING_DENIALS = 256


@functools.cache
def _admits_nobody() -> AppraisalPolicy:
    # No service has this manifest: a manifest is a digest, and nobody knows what has the digest zero.
    return AppraisalPolicy.from_toml(
        'tees = ["snp"]\n[service]\nkind = "none"\nid = "none"\n'
        f'manifest = ["{"00" * 32}"]\n[reference.snp]\nmeasurement = ["{"00" * 48}"]\n'
    )


@dataclass(frozen=True, slots=True)
class Granted:
    """A release: the wrapped secrets, what proves their origin (in the order of the request), and the length of the ledger
    that holds its record.
    """

    wrapped: Wrapped
    origins: tuple[tuple[SignedStatement, bytes], ...] = field(repr=False)
    record: int


class Releaser:
    """Decides releases over one store. Thread-safe; ``release`` takes milliseconds of CPU and one fsync."""

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        *,
        audience: str,
        anchors: Iterable[TrustAnchor] = (),
        allow_simulated: bool = False,
        allow_unanchored: bool = False,
        challenges: StatelessChallenges,
        releases: Buckets,
        clock: Callable[[], datetime],
    ) -> None:
        """``clock`` is the host's; records of the ledger keep it from being turned back. ``releases`` limits what one
        attested instance may be given.
        """
        self._store = store
        self._holdings = holdings
        self._audience = audience
        self._anchors = tuple(anchors)
        self._allow_simulated = allow_simulated
        self._allow_unanchored = allow_unanchored
        self._challenges = challenges
        self._releases = releases
        self._clock = clock
        self._denials: OrderedDict[tuple[bytes, str, str], int] = OrderedDict()
        self._denials_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        # Imported now: code that is first loaded by a request would be read from the disk at a time of the host's choosing.
        for tee in schemes.PACKAGES:
            configured = schemes.configured(tee)
            _ = configured.authenticate, configured.appraise, configured.endorse
        _admits_nobody()

    @property
    def audience(self) -> str:
        """Whom evidence for a release by this broker must name."""
        return self._audience

    @property
    def open(self) -> bool:
        """Whether anything is released at all: not while the store is unanchored, unless the measured configuration
        allows that.
        """
        return self._store.anchored or self._allow_unanchored

    def challenge(self, owner: bytes, tenant: str, wanted: Iterable[Wanted]) -> tuple[ReleaseRequest, bytes]:
        """A request for evidence and its token, for anybody and for any names: nothing shows which of them exist."""
        with self._store.transaction() as tx:
            policy = self._policy(tx, owner, tenant)
            names = [self._resolve(tx, owner, policy, tenant, item) for item in wanted]
        # The challenge is a MAC over the request without itself, so it is made first over the names.
        names.sort()
        challenge, token = self._challenges.issue(*self._context(owner, tenant, tuple(names)))
        return ReleaseRequest.new(tenant, names, challenge), token

    def release(self, owner: bytes, request: ReleaseRequest, token: bytes, evidence: bytes) -> Granted:
        """Decide. Raises ``broker.unanchored`` while nothing may be released, the challenge's errors, and
        ``broker.denied`` or ``broker.rate_limited``; errors of the store mean that nothing was released.
        """
        if not self.open:
            raise BrokerError(
                "unanchored",
                "the broker was restarted, and nothing vouches that its database is the newest",
                hint="put the keys into a new broker, or allow it in the measured configuration: allow_unanchored",
            )
        age = self._challenges.present(
            request.challenge, token, *self._context(owner, request.tenant, request.secrets)
        )  # (1)
        try:
            return self._decide(owner, request, evidence, age)
        except ConfideError as error:
            if error.code.startswith(("sealing.storage", "broker.integrity", "broker.rollback")):
                raise
            self._note(owner, request.tenant, error.code)
            if error.code == "broker.rate_limited":
                raise
            raise KeyRefused(
                "denied",
                "the broker does not release these secrets to this enclave",
                hint="the owner finds the reason in the broker's audit log",
            ) from None

    def _decide(self, owner: bytes, request: ReleaseRequest, evidence: bytes, age: timedelta) -> Granted:
        with self._store.transaction() as tx:  # (2)
            policy = self._policy(tx, owner, request.tenant)
        covered = policy is not None and set(request.secrets) <= set(policy.statement.secrets)
        appraisal = policy.statement.appraisal_policy if policy is not None and covered else _admits_nobody()
        verifier = Verifier(appraisal, extra_anchors=self._anchors, allow_simulated=self._allow_simulated)
        admission = admit(
            evidence, request, verifier=verifier, audience=self._audience, at=self._now(), age=age
        )
        if policy is None or not covered:
            raise KeyRefused("denied", "no policy of the owner covers this tenant and these secrets")
        material = admission.result.key_material
        if material is None:
            raise NotAcceptable("channel", "the evidence vouches for no key", stage="release")
        self._releases.take((owner, material.service.instance))
        held: dict[SecretName, Held] = {}
        with self._store.holding():
            try:
                with self._store.transaction() as tx:  # (3)
                    self._check_again(tx, owner, request, policy, admission, held)
                    tx.record("release", owner, _release_details(request, policy, admission, age))
                secrets = {name: item.secret for name, item in held.items()}
                wrapped = wrap(admission, secrets, lease=policy.statement.lease_seconds)  # (4)
            finally:
                for item in held.values():
                    item.secret.erase()
            origins = tuple((item.signed, item.salt) for item in held.values())
            return Granted(wrapped, origins, tx.length)

    def _check_again(
        self,
        tx: Transaction,
        owner: bytes,
        request: ReleaseRequest,
        policy: Policy,
        admission: Admission,
        held: dict[SecretName, Held],
    ) -> None:
        """Put the secrets into ``held``, which is the caller's to erase whatever comes, or refuse."""
        now = self._holdings.policy(tx, owner, request.tenant)
        if now is None or not hmac.compare_digest(now.digest, policy.digest):
            raise KeyRefused("denied", "the policy was changed while evidence was verified")
        result = admission.result
        if not hmac.compare_digest(result.policy_digest, now.statement.appraisal_policy.digest):
            raise KeyRefused("denied", "the evidence was verified under another policy")
        material = result.key_material
        if material is None:
            raise NotAcceptable("channel", "the evidence vouches for no key", stage="release")
        if self._holdings.is_revoked(tx, owner, "manifest", material.service.manifest):
            raise KeyRefused("denied", "the manifest of the enclave was revoked")
        for value in result.claims.measurements.values():
            if self._holdings.is_revoked(tx, owner, "measurement", bytes(value)):
                raise KeyRefused("denied", "a measurement of the enclave was revoked")
        if not self._holdings.admit_instance(tx, now, material.service.instance):
            raise KeyRefused("denied", "the policy admits no further instance")
        for name in request.secrets:
            item = self._holdings.secret(tx, owner, name)
            if item is None:
                raise KeyRefused("denied", "a secret is not there or was revoked")
            held[name] = item

    def flush_denials(self) -> None:
        """Write what was refused into the ledger. Called after the answer has gone out: a refusal need not be durable
        first, and its time must not depend on whether there is an owner to tell.
        """
        with self._flush_lock:
            while True:
                with self._denials_lock:
                    if not self._denials:
                        return
                    (owner, tenant, code), times = self._denials.popitem(last=False)
                with self._store.transaction() as tx:
                    if self._holdings.policy(tx, owner, tenant) is not None:
                        kind = "limited" if code == "broker.rate_limited" else "denied"
                        tx.record(kind, owner, {"tenant": tenant, "reason": code, "times": times})

    def _note(self, owner: bytes, tenant: str, code: str) -> None:
        with self._denials_lock:
            key = (owner, tenant, code)
            if key in self._denials or len(self._denials) < MAX_WAITING_DENIALS:
                self._denials[key] = self._denials.get(key, 0) + 1

    def _policy(self, tx: Transaction, owner: bytes, tenant: str) -> Policy | None:
        """The policy in force and readable. A policy that cannot be read admits nobody."""
        policy = self._holdings.policy(tx, owner, tenant)
        if policy is None:
            return None
        try:
            policy.statement.appraisal_policy  # noqa: B018 - parsed for its errors
        except ConfideError as error:
            self._note(owner, tenant, error.code)
            return None
        return policy

    def _resolve(
        self, tx: Transaction, owner: bytes, policy: Policy | None, tenant: str, wanted: Wanted
    ) -> SecretName:
        if wanted.version:
            return SecretName(wanted.name, wanted.version)
        allowed = [] if policy is None else [s for s in policy.statement.secrets if s.name == wanted.name]
        present = [name for name in allowed if self._holdings.has_secret(tx, owner, name)]
        if present:
            return max(present)
        # For what is not there a version is made up, the same each time and small like real ones, so that the answer
        # does not show that it is not there.
        invented = self._store.identity("invented", (owner, tenant, wanted.name))
        return SecretName(wanted.name, 1 + sum(1 for byte in invented[:2] if byte < 64))

    def _context(self, owner: bytes, tenant: str, names: tuple[SecretName, ...]) -> tuple[object, ...]:
        return "release", owner, tenant, [[name.name, name.version] for name in names]

    def _now(self) -> datetime:
        return max(self._clock(), datetime.fromtimestamp(self._store.floor, UTC))


def _release_details(
    request: ReleaseRequest, policy: Policy, admission: Admission, age: timedelta
) -> dict[str, object]:
    result = admission.result
    material = result.key_material
    return {
        "tenant": request.tenant,
        "secrets": [[s.name, s.version] for s in request.secrets],
        "policy": policy.digest,
        "appraisal": result.policy_digest,
        "manifest": b"" if material is None else material.service.manifest,
        "instance": b"" if material is None else material.service.instance,
        "kid": result.kid or b"",
        "tee": result.tee,
        "simulated": result.simulated,
        "lease_seconds": policy.statement.lease_seconds,
        "age_ms": int(age.total_seconds() * 1000),
    }
