# SPDX-License-Identifier: Apache-2.0
"""Is an NVIDIA device the one that a policy wants? The table ``[reference.nvidia]``, and claims against it.

[reference.nvidia]
rim = "required"                           # the default; "ANY" skips the comparison with NVIDIA's documents and says so
measurements = { 7 = ["<96 hex digits>"] } # own values, by NVIDIA's index (SPDM's less one), beside or instead of `rim`
required = true                            # the default: beside a CPU's TEE there must be a device
count = 8                                  # exactly so many devices
require_binding = true                     # the default: the report must answer the nonce of the platform's evidence
kinds = ["gpu", "switch"]                  # the default is what the evidence is of; beside a CPU's TEE it is ["gpu"]
architectures = ["hopper", "blackwell", "ls10"]     # the default
device_ids = ["41431D480FE5E87274"]        # only these devices: serial numbers of the certificates of their own keys
drivers = ["550.90.07"]     min_driver = "550.90"   # exactly one of these; none below this, number by number; both refuse a switch
vbios = ["96.00.9F.00.01"]  min_vbios = "96.00.9F.00.00"
modes = ["spt", "mpt", "ppcie"]            # what the firmware must say of its mode; old firmware says nothing and is then refused
protected_pcie = true                      # what the firmware must say of protected PCIe

A report does not say whether confidential computing is on or in DevTools mode. ``docs/platforms/nvidia.md`` says what vouches for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation import result
from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import (
    AttestationError,
    ConfigurationError,
    EndorsementsMissing,
    NotAcceptable,
    NotGenuine,
)
from confide.tees.nvidia import endorse
from confide.tees.nvidia.authenticate import NvidiaDetails
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason
    from confide.tees.nvidia.compare import Document, RimComparison

__all__ = ["NvidiaReference", "appraise", "describe", "parse_reference", "trustworthiness"]

MAX_COUNT: Final = 16
_KINDS: Final = ("gpu", "switch")
_MODES: Final = ("spt", "mpt", "ppcie")
_DRIVER = re.compile(r"\d{1,5}(?:\.\d{1,5}){0,3}", re.ASCII)
_VBIOS = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}", re.ASCII)
_DEVICE_ID = re.compile(r"[1-9A-F][0-9A-F]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NvidiaReference:
    """The parsed table; None where nothing is asked for. ``rim`` False is the spelled ``ANY``."""

    rim: bool
    measurements: Mapping[int, tuple[bytes, ...]]
    required: bool
    count: int | None
    require_binding: bool
    kinds: tuple[str, ...] | None
    architectures: tuple[str, ...]
    device_ids: tuple[str, ...] | None
    drivers: tuple[str, ...] | None
    min_driver: tuple[int, ...] | None
    vbios: tuple[str, ...] | None
    min_vbios: tuple[int, ...] | None
    modes: tuple[str, ...] | None
    protected_pcie: bool | None

    @property
    def measured(self) -> bool:
        """Whether the firmware's measurements are compared, with NVIDIA's documents or with the policy's own values."""
        return self.rim or bool(self.measurements)

    @property
    def wildcards(self) -> tuple[str, ...]:
        """``rim`` if it is spelled ``ANY``."""
        return () if self.rim else ("rim",)

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """Nothing: devices chain to NVIDIA's roots."""
        return ()


def parse_reference(table: Mapping[str, object]) -> NvidiaReference:
    """The table ``[reference.nvidia]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` for a list that admits nothing.
    """
    fields = Fields(table, "[reference.nvidia]", ConfigurationError)
    rim = fields.text("rim", 16, default="required")
    if rim not in {"required", "ANY"}:
        raise ConfigurationError(
            "invalid",
            '`rim` in [reference.nvidia] is neither "required" nor "ANY"',
            hint="the default is required",
        )
    min_driver = fields.text("min_driver", 32, default=None)
    min_vbios = fields.text("min_vbios", 32, default=None)
    reference = NvidiaReference(
        rim=rim == "required",
        measurements=_measurements(fields.mapping("measurements", default={})),
        required=fields.boolean("required", default=True),
        count=fields.integer("count", 1, MAX_COUNT, default=None),
        require_binding=fields.boolean("require_binding", default=True),
        kinds=_words(fields, "kinds", _KINDS),
        architectures=_words(fields, "architectures", endorse.ARCHITECTURES) or endorse.ARCHITECTURES,
        device_ids=_matching(fields, "device_ids", _DEVICE_ID),
        drivers=_matching(fields, "drivers", _DRIVER),
        min_driver=None if min_driver is None else _driver(min_driver),
        vbios=_matching(fields, "vbios", _VBIOS),
        min_vbios=None if min_vbios is None else _vbios(min_vbios),
        modes=_words(fields, "modes", _MODES),
        protected_pcie=fields.boolean("protected_pcie", default=None),
    )
    fields.end()
    return reference


def _measurements(table: Mapping[object, object]) -> Mapping[int, tuple[bytes, ...]]:
    words = {str(key): value for key, value in table.items()}
    fields = Fields(words, "`measurements` in [reference.nvidia]", ConfigurationError)
    found: dict[int, tuple[bytes, ...]] = {}
    for key in words:
        if not key.isascii() or not key.isdigit() or len(key) > 3 or int(key) > 254 or str(int(key)) != key:
            raise ConfigurationError(
                "invalid", "`measurements` in [reference.nvidia] has a key that is no index", hint="0 to 254"
            )
        found[int(key)] = digests(fields, key, 48, default=None) or ()
    return MappingProxyType(found)


def _list(fields: Fields, key: str) -> list[object] | None:
    values: list[object] | None = fields.list_(key, 256, default=None)
    if values is not None and not values:
        raise NotAcceptable("empty_policy", f"`{key}` is an empty list, which admits nothing")
    return values


def _words(fields: Fields, key: str, known: tuple[str, ...]) -> tuple[str, ...] | None:
    values = _list(fields, key)
    if values is None:
        return None
    if any(value not in known for value in values):
        raise ConfigurationError(
            "invalid", f"`{key}` has a word that is not known", hint=f"known: {', '.join(known)}"
        )
    return tuple(str(value) for value in values)


def _matching(fields: Fields, key: str, pattern: re.Pattern[str]) -> tuple[str, ...] | None:
    values = _list(fields, key)
    if values is None:
        return None
    words = tuple(value if isinstance(value, str) else "" for value in values)
    if not all(pattern.fullmatch(word) for word in words):
        raise ConfigurationError(
            "invalid",
            f"`{key}` in [reference.nvidia] has a value that is not in its form",
            hint='drivers are written "550.90.07", VBIOS versions "96.00.9F.00.01", device ids in upper-case hexadecimal',
        )
    return words


def _driver(text: str) -> tuple[int, ...]:
    if not _DRIVER.fullmatch(text):
        raise ConfigurationError("invalid", "`min_driver` is not a version", hint='write "550.90.07"')
    return tuple(int(part) for part in text.split("."))


def _vbios(text: str) -> tuple[int, ...]:
    if not _VBIOS.fullmatch(text):
        raise ConfigurationError("invalid", "`min_vbios` is not a version", hint='write "96.00.9F.00.01"')
    return tuple(int(part, 16) for part in text.split("."))


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none.

    With ``rim = "required"`` raises ``NotGenuine`` for a document that was needed and is not NVIDIA's or is revoked, and, if nothing
    else is wrong, ``endorsements_missing`` (``rim``, ``rim_expired``, ``ocsp``) for one that is not there or not in force.
    """
    details, wanted = _details(claims), _reference(reference)
    found: list[Reason] = []

    def need(condition: bool, leaf: str, message: str, hint: str = "", stage: str = "policy") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint, stage=stage))

    # A switch that stands beside a platform where nothing was said of switches would count as its GPU.
    kinds = wanted.kinds or (("gpu",) if details.attached else _KINDS)
    need(
        details.kind in kinds,
        "attributes",
        f"the policy does not admit this kind of device: {details.kind}",
        f'add "{details.kind}" to `kinds` in [reference.nvidia] if you mean to',
    )
    need(
        details.architecture in wanted.architectures,
        "attributes",
        f"the policy does not admit this architecture: {details.architecture}",
    )
    need(
        wanted.device_ids is None or details.device_id in wanted.device_ids,
        "identity",
        "the device is not one that the policy names",
    )
    need(
        policy.allow_debug or not details.debug,
        "debug",
        "the device's certificate says that its firmware is open to debugging",
        "`allow_debug = true` accepts this for development",
    )
    need(
        not details.unfit,
        "attributes",
        f"the device's certificate says that its firmware is {' and '.join(details.unfit)}",
    )
    found += _modes(details, wanted)
    found += _versions(details, wanted)
    for index, values in wanted.measurements.items():
        need(
            claims.measurements.get(str(index)) in values,
            "measurement",
            f"measurement {index} is not one that the policy names",
        )
    if wanted.rim:
        found += _rim(details.rim, decided=bool(found))
    return tuple(found)


def _modes(details: NvidiaDetails, wanted: NvidiaReference) -> list[Reason]:
    found = []
    if wanted.modes is not None and details.mode not in wanted.modes:
        found.append(
            unacceptable(
                "gpu_mode",
                "the firmware does not say that it is in a mode that the policy admits",
                hint="firmware before driver 580 says nothing about its mode" if details.mode is None else "",
            )
        )
    if wanted.protected_pcie is not None and details.protected_pcie is not wanted.protected_pcie:
        state = "on" if wanted.protected_pcie else "off"
        found.append(unacceptable("gpu_mode", f"the firmware does not say that protected PCIe is {state}"))
    return found


def _driver_numbers(version: str | None) -> tuple[int, ...]:
    """The numbers of a driver's version; none, which is below every floor, for one that is absent or not written in numbers."""
    if version is None or not _DRIVER.fullmatch(version):
        return ()
    return tuple(int(part) for part in version.split("."))


def _versions(details: NvidiaDetails, wanted: NvidiaReference) -> list[Reason]:
    found: list[Reason] = []
    update = "update the machine's firmware and driver"
    # The report of a switch names no driver, and satisfies no demand on one.
    driver = details.driver_version
    if wanted.drivers is not None and driver not in wanted.drivers:
        found.append(unacceptable("measurement", "the driver's version is not one that the policy names"))
    if wanted.min_driver is not None and _driver_numbers(driver) < wanted.min_driver:
        found.append(
            unacceptable(
                "below_minimum",
                "the driver is older than the policy admits" if driver else "the report names no driver",
                hint=update
                if driver
                else "the report of a switch names none: leave `min_driver` out for switches",
                stage="tcb",
            )
        )
    if wanted.vbios is not None and details.vbios_version not in wanted.vbios:
        found.append(unacceptable("measurement", "the VBIOS version is not one that the policy names"))
    if wanted.min_vbios is not None:
        numbers = tuple(int(part, 16) for part in details.vbios_version.split("."))
        if numbers < wanted.min_vbios:
            found.append(
                unacceptable(
                    "below_minimum", "the VBIOS is older than the policy admits", hint=update, stage="tcb"
                )
            )
    return found


def _rim(comparison: RimComparison, *, decided: bool) -> list[Reason]:
    """What follows from the comparison. A difference decides by itself; what is missing does only if nothing else does."""
    genuine = [one for one in comparison.findings if one.code.startswith(f"{NotGenuine.family}.")]
    missing = [one for one in comparison.findings if one.code.startswith(f"{EndorsementsMissing.family}.")]
    result.raise_first(genuine, [])
    found: list[Reason] = []
    if comparison.conflicts:
        found.append(
            unacceptable(
                "rim_conflict",
                f"both RIM documents have values for the measurements {_indexes(comparison.conflicts)}",
            )
        )
    if comparison.mismatched:
        found.append(
            unacceptable(
                "measurement",
                f"the measurements {_indexes(comparison.mismatched)} differ from those that NVIDIA has signed",
                hint="the firmware or its configuration is not what its version says; do not give it data",
            )
        )
    if not found and not decided:
        result.raise_first([], missing)
        if not comparison.complete:
            # Nothing is known to be wrong, but a document without a value that counts vouches for nothing.
            found.append(
                unacceptable("measurement", "a document of NVIDIA's names no measurement of this device")
            )
    return found


def _indexes(indexes: tuple[int, ...]) -> str:
    """Indexes for a person, runs of them as ``21-34``."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted device. Of its memory nothing is claimed: the report does not say that it is shut off."""
    details, wanted = _details(claims), _reference(reference)
    return Vector(
        instance_identity=2 if wanted.device_ids is not None else 0,
        configuration=96 if details.debug else 2,
        executables=3 if wanted.rim else 33,
        hardware=2,
    )


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values; measurements that are all zeros stand for nothing and are left out."""
    details = _details(claims)
    return {
        "device": details.kind,
        "model": details.model,
        "architecture": details.architecture,
        "device_id": details.device_id,
        "ueid": details.ueid,
        "udi": details.udi,
        "nonce": claims.report_data.hex(),
        "driver_version": details.driver_version,
        "vbios_version": details.vbios_version,
        "board": details.board,
        "fwid": None if details.fwid is None else details.fwid.hex(),
        "mode": details.mode,
        "protected_pcie": details.protected_pcie,
        "debug": details.debug,
        "switches": [pdi.hex() for pdi in details.switch_pdis],
        "rim": _describe_rim(details.rim),
        "measurements": {index: value.hex() for index, value in claims.measurements.items() if any(value)},
    }


def _describe_rim(comparison: RimComparison) -> dict[str, object]:
    return {
        "complete": comparison.complete,
        "documents": [_describe_document(document) for document in comparison.documents],
        "matched": _indexes(comparison.matched),
        "mismatched": _indexes(comparison.mismatched),
        "skipped": _indexes(comparison.skipped),
        "uncovered": _indexes(comparison.uncovered),
        "conflicts": _indexes(comparison.conflicts),
        "findings": [f"{one.code}: {one.message}" for one in comparison.findings],
    }


def _describe_document(document: Document) -> dict[str, object]:
    return {
        "kind": document.kind,
        "version": document.version,
        "product": document.product,
        "signer": document.signer,
        "expires": document.expires.isoformat(),
        "revocation": document.revocation.detail,
    }


def _details(claims: Claims) -> NvidiaDetails:
    if not isinstance(claims.details, NvidiaDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> NvidiaReference:
    if not isinstance(reference, NvidiaReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
