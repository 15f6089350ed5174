# SPDX-License-Identifier: Apache-2.0
"""The one explicit table from a TEE's name to its modules, resolved when they are needed.

This is how the Verifier reaches upward to ``tees`` without importing it. Nothing registers itself: a TEE is in this
table or it is refused.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from confide.errors import ConfigurationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.evidence import Endorsements
    from confide.attestation.policy import AppraisalPolicy
    from confide.attestation.result import Vector
    from confide.errors import Reason

__all__ = ["CPU", "DEVICES", "PACKAGES", "DeviceReference", "Reference", "Scheme", "configured", "scheme"]

CPU = ("snp", "tdx", "sgx", "nitro")
"""The TEEs that protect a whole program's memory."""

DEVICES = ("tpm", "nvidia")
"""What is attached to one of them, and proves little alone."""

PACKAGES: Mapping[str, str] = {
    **{tee: f"confide.tees.{tee}" for tee in (*CPU, *DEVICES)},
    "token": "confide.attestation.tokens",
}


class Reference(Protocol):
    """What every TEE's parsed policy table tells the policy as a whole."""

    @property
    def measured(self) -> bool:
        """Whether the platform's own measurement is pinned (and not spelled ``ANY``)."""

    @property
    def wildcards(self) -> tuple[str, ...]:
        """The names of the values that are spelled ``ANY``, or that the table leaves open."""

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """What the table itself makes trusted, beside the vendor's pinned roots; usually nothing."""


class DeviceReference(Reference, Protocol):
    """What the table of a device says besides."""

    @property
    def required(self) -> bool:
        """Whether evidence of a CPU's TEE without this device is refused."""

    @property
    def count(self) -> int | None:
        """How many of these devices there must be, exactly; None for any number."""

    @property
    def require_binding(self) -> bool:
        """Whether the device's evidence must be seen to belong to the platform's."""


class _Authenticate(Protocol):
    def authenticate(
        self,
        data: bytes,
        *,
        endorsements: Endorsements,
        anchors: tuple[TrustAnchor, ...],
        at: datetime,
        require_revocation: bool,
    ) -> Claims: ...


class _AuthenticateDevice(Protocol):
    def authenticate(
        self,
        data: bytes,
        *,
        endorsements: Endorsements,
        anchors: tuple[TrustAnchor, ...],
        at: datetime,
        require_revocation: bool,
        platform: Claims | None,
    ) -> Claims: ...


class _Appraise(Protocol):
    def parse_reference(self, table: Mapping[str, object]) -> Reference: ...
    def appraise(
        self, claims: Claims, reference: Reference, policy: AppraisalPolicy
    ) -> tuple[Reason, ...]: ...
    def trustworthiness(self, claims: Claims, reference: Reference) -> Vector: ...
    def describe(self, claims: Claims) -> Mapping[str, object]: ...


class _Endorse(Protocol):
    def anchors(self) -> tuple[TrustAnchor, ...]: ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """One TEE's verifying modules, by name."""

    tee: str
    package: str

    @property
    def authenticate(self) -> _Authenticate:
        """The module that answers: is it genuine?"""
        return cast("_Authenticate", importlib.import_module(f"{self.package}.authenticate"))

    @property
    def authenticate_device(self) -> _AuthenticateDevice:
        """The same module for one of ``DEVICES``, which is also told what it is attached to."""
        return cast("_AuthenticateDevice", importlib.import_module(f"{self.package}.authenticate"))

    @property
    def appraise(self) -> _Appraise:
        """The module that answers: is it mine?"""
        return cast("_Appraise", importlib.import_module(f"{self.package}.appraise"))

    @property
    def endorse(self) -> _Endorse:
        """The module that holds what the vendor says."""
        return cast("_Endorse", importlib.import_module(f"{self.package}.endorse"))


def scheme(tee: str) -> Scheme:
    """The scheme for a format named in evidence; ``malformed.unknown_format`` for every other."""
    package = PACKAGES.get(tee)
    if package is None:
        raise MalformedError(
            "unknown_format", "unknown evidence format", hint=f"supported: {', '.join(PACKAGES)}"
        )
    return Scheme(tee, package)


def configured(tee: str) -> Scheme:
    """The scheme for a TEE named in a policy; ``configuration.tee`` for every other."""
    package = PACKAGES.get(tee)
    if package is None:
        raise ConfigurationError(
            "tee", "the policy names an unknown TEE", hint=f"supported: {', '.join(PACKAGES)}"
        )
    return Scheme(tee, package)
