# SPDX-License-Identifier: Apache-2.0
"""Every error that confide raises.

    ConfideError
    ├─ MalformedError            bytes that are not what they claim to be
    ├─ AttestationError          evidence that does not lead to trust
    │  ├─ NotGenuine             not made by the hardware it names
    │  ├─ NotAcceptable          genuine, but not what the policy asks for
    │  └─ EndorsementsMissing    undecidable until a vendor's statement is supplied
    ├─ ChannelError              the attested envelope between client and enclave
    ├─ SealingError              protected files and vaults
    ├─ BrokerError               the key broker
    │  └─ KeyRefused             a key that was not released
    ├─ EnclaveError              launching and running an enclave
    │  └─ TeeUnavailable         the requested TEE is not on this machine
    ├─ FederationError           federated learning
    ├─ CleanRoomError            analytics over several parties' data
    ├─ ModelError                a model that is refused or does not fit its input
    └─ ConfigurationError        what the caller wrote is wrong

An error carries a stable dotted ``code`` (``not_genuine.bad_signature``), the ``stage`` at which it arose, a message
that never contains a value taken from a secret or from hostile input, and a ``hint`` that says what to do. For hostile
input nothing but these escapes the public API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AttestationError",
    "BrokerError",
    "ChannelError",
    "CleanRoomError",
    "ConfideError",
    "ConfigurationError",
    "EnclaveError",
    "EndorsementsMissing",
    "FederationError",
    "KeyRefused",
    "MalformedError",
    "ModelError",
    "NotAcceptable",
    "NotGenuine",
    "Reason",
    "SealingError",
    "TeeUnavailable",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding: a dotted code, the stage at which it arose, and two sentences for a person."""

    code: str
    stage: str
    message: str
    hint: str = ""


class ConfideError(Exception):
    """The root of the tree; catch this to catch everything that confide raises on purpose."""

    family: ClassVar[str] = "confide"
    default_stage: ClassVar[str] = ""

    def __init__(
        self, leaf: str, message: str, *, hint: str = "", stage: str = "", retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.code = f"{self.family}.{leaf}"
        self.message = message
        self.hint = hint
        self.stage = stage or self.default_stage
        self.retryable = retryable

    @property
    def reason(self) -> Reason:
        """The error as a finding."""
        return Reason(self.code, self.stage, self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f"\nhint: {self.hint}" if self.hint else "")


class MalformedError(ConfideError):
    """Bytes that do not have the form they claim. Raised before any signature is looked at."""

    family = "malformed"
    default_stage = "parse"


class AttestationError(ConfideError):
    """Evidence that does not lead to trust; ``reasons`` holds every finding, the first one first."""

    family = "attestation"

    def __init__(
        self,
        leaf: str,
        message: str,
        *,
        hint: str = "",
        stage: str = "",
        retryable: bool = False,
        further: tuple[Reason, ...] = (),
    ) -> None:
        super().__init__(leaf, message, hint=hint, stage=stage, retryable=retryable)
        self.reasons: tuple[Reason, ...] = (self.reason, *further)


class NotGenuine(AttestationError):
    """The evidence was not made by the hardware it names."""

    family = "not_genuine"
    default_stage = "signature"


class NotAcceptable(AttestationError):
    """The evidence is genuine and describes something that the policy does not accept.

    Where a Verifier refuses, ``claims`` are the authenticated claims of the platform and its devices, for whoever asked.
    """

    family = "not_acceptable"
    default_stage = "policy"
    claims: tuple[Any, ...] = ()


class EndorsementsMissing(AttestationError):
    """A vendor's certificate, CRL or TCB statement is needed before anything can be decided."""

    family = "endorsements_missing"
    default_stage = "endorsement"


class ChannelError(ConfideError):
    """The attested envelope could not be opened, or its peer broke the protocol."""

    family = "channel"
    default_stage = "channel"


class SealingError(ConfideError):
    """A protected file or a vault that cannot be opened or written."""

    family = "sealing"
    default_stage = "sealing"


class BrokerError(ConfideError):
    """The key broker refused or failed."""

    family = "broker"
    default_stage = "broker"


class KeyRefused(BrokerError):
    """A key that was asked for and not released."""


class EnclaveError(ConfideError):
    """An enclave that could not be launched, died, or was used in the wrong state."""

    family = "enclave"
    default_stage = "enclave"


class TeeUnavailable(EnclaveError):
    """The requested TEE, or the confinement level asked for, is not to be had on this machine."""


class FederationError(ConfideError):
    """Federated learning."""

    family = "federation"
    default_stage = "federation"


class CleanRoomError(ConfideError):
    """Analytics over several parties' data."""

    family = "cleanroom"
    default_stage = "cleanroom"


class ModelError(ConfideError):
    """A model that is refused, or an input that does not fit it."""

    family = "model"
    default_stage = "model"


class ConfigurationError(ConfideError):
    """What the caller wrote (a policy, a service, an option) is wrong."""

    family = "configuration"
    default_stage = "configuration"
