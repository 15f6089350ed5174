# SPDX-License-Identifier: Apache-2.0
"""Is a TPM's quote of the machine that a policy wants? The table ``[reference.tpm]``, and claims against it.

[reference.tpm]
pcr = { 4 = ["<64 hex digits>"], 9 = ["<64>", "<64>"] }    # mandatory: any of these values; or "ANY", spelled out
bank = "sha256"                            # the default; or "sha384", "sha512": the PCR values are of that length
ak = ["<64>"]                              # only these attestation keys, by SHA-256 of their SubjectPublicKeyInfo; this trusts them
event_log = "optional"                     # the default: a log that is given must replay to PCR 0 to 7; "required": there must be
                                           # one, and it must replay to the PCRs up to 9 that `pcr` names
secure_boot = true                         # as the firmware measured it, or as Azure's paravisor says
min_firmware = 0x20200312                  # of the TPM's firmware version, a number of 64 bits
last_seen = { reset_count = 3, restart_count = 0, clock = 41000 }   # of this key, seen earlier: refused if it went back
vm_ids = ["26F8BC30-774E-4290-8E7A-535F3B672AEE"]           # Azure: only these machines
projects = ["my-project"]    zones = ["europe-west4-a"]    instance_ids = [1234]        # Google Cloud: only these machines
required = true                            # the default; false admits evidence of a CPU's TEE without a TPM
require_binding = true                     # the default; a TPM beside a CPU's TEE is always trusted through that TEE

The PCRs of a virtual TPM are worth what the firmware that runs it is worth: pin the platform's own measurement as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from confide.attestation.anchors import TrustAnchor
from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import AttestationError, ConfigurationError, NotAcceptable
from confide.tees.tpm import wire
from confide.tees.tpm.authenticate import TpmDetails
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["TpmReference", "appraise", "describe", "parse_reference", "trustworthiness"]

_T = TypeVar("_T")

MAX_NAMES: Final = 1024
_BANKS: Final = ("sha256", "sha384", "sha512")
_FIRMWARE_PCRS: Final = tuple(range(8))
_LAST_FIRMWARE_PCR: Final = 9
_BOOT_LOADER: Final = 4
_SYSTEM_PCRS: Final = frozenset({8, 9, 11})


@dataclass(frozen=True, slots=True)
class TpmReference:
    """The parsed table; None where nothing is asked for. ``pcr`` None is the spelled ``ANY``."""

    pcr: Mapping[int, tuple[bytes, ...]] | None
    bank: str
    ak: tuple[bytes, ...] | None
    event_log: str
    secure_boot: bool | None
    min_firmware: int
    last_seen: wire.ClockInfo | None
    vm_ids: tuple[str, ...] | None
    projects: tuple[str, ...] | None
    zones: tuple[str, ...] | None
    instance_ids: tuple[int, ...] | None
    required: bool
    require_binding: bool

    @property
    def measured(self) -> bool:
        """Whether the PCRs that are pinned tell which system was booted: 4, the boot loader, with 8, 9 or 11."""
        return self.pcr is not None and _BOOT_LOADER in self.pcr and not _SYSTEM_PCRS.isdisjoint(self.pcr)

    @property
    def wildcards(self) -> tuple[str, ...]:
        """``pcr`` if it is spelled ``ANY``."""
        return ("pcr",) if self.pcr is None else ()

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """The attestation keys that the policy pins."""
        return () if self.ak is None else (TrustAnchor("tpm", "policy", (), keys=self.ak),)

    @property
    def count(self) -> int | None:
        """A machine has one TPM; the Verifier refuses a second one."""
        return None


def parse_reference(table: Mapping[str, object]) -> TpmReference:
    """The table ``[reference.tpm]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where ``pcr`` is absent or empty.
    """
    fields = Fields(table, "[reference.tpm]", ConfigurationError)
    bank = _one_of(fields, "bank", _BANKS, default="sha256")
    reference = TpmReference(
        pcr=_pcrs(fields, table, bank),
        bank=bank,
        ak=digests(fields, "ak", 32, default=None),
        event_log=_one_of(fields, "event_log", ("optional", "required"), default="optional"),
        secure_boot=fields.boolean("secure_boot", default=None),
        min_firmware=fields.integer("min_firmware", 0, (1 << 63) - 1, default=0),
        last_seen=_last_seen(fields),
        vm_ids=_names(fields, "vm_ids"),
        projects=_names(fields, "projects"),
        zones=_names(fields, "zones"),
        instance_ids=_numbers(fields, "instance_ids"),
        required=fields.boolean("required", default=True),
        require_binding=fields.boolean("require_binding", default=True),
    )
    fields.end()
    return reference


def _pcrs(fields: Fields, table: Mapping[str, object], bank: str) -> Mapping[int, tuple[bytes, ...]] | None:
    if table.get("pcr") == "ANY":
        fields.text("pcr")
        return None
    given = fields.mapping("pcr", default={})
    if not given:
        raise NotAcceptable(
            "empty_policy",
            "[reference.tpm] pins no PCR",
            hint='add `pcr = { 4 = ["<hexadecimal digits>"] }`, or spell `pcr = "ANY"` if you mean it',
        )
    inner = Fields(given, "`pcr` in [reference.tpm]", ConfigurationError)
    found: dict[int, tuple[bytes, ...]] = {}
    for index in range(wire.MAX_PCRS):
        values = digests(inner, str(index), wire.DIGEST_BYTES[bank], default=None)
        if values is not None:
            found[index] = values
    inner.end()
    return MappingProxyType(found)


def _one_of(fields: Fields, key: str, known: tuple[str, ...], *, default: str) -> str:
    word = fields.text(key, 16, default=default)
    if word not in known:
        raise ConfigurationError(
            "invalid",
            f"`{key}` in [reference.tpm] is not a word that is known",
            hint=f"one of: {', '.join(known)}",
        )
    return word


def _last_seen(fields: Fields) -> wire.ClockInfo | None:
    given = fields.mapping("last_seen", default=None)
    if given is None:
        return None
    inner = Fields(given, "`last_seen` in [reference.tpm]", ConfigurationError)
    seen = wire.ClockInfo(
        clock=inner.integer("clock", 0, (1 << 63) - 1, default=0),
        reset_count=inner.integer("reset_count", 0, (1 << 32) - 1),
        restart_count=inner.integer("restart_count", 0, (1 << 32) - 1, default=0),
        safe=True,
    )
    inner.end()
    return seen


def _names(fields: Fields, key: str) -> tuple[str, ...] | None:
    values = fields.list_(key, MAX_NAMES, default=None)
    if values is None:
        return None
    if any(not isinstance(value, str) or not value for value in values):
        raise ConfigurationError("invalid", f"`{key}` in [reference.tpm] has a value that is not text")
    return _filled(tuple(str(value) for value in values), key)


def _numbers(fields: Fields, key: str) -> tuple[int, ...] | None:
    values = fields.list_(key, MAX_NAMES, default=None)
    if values is None:
        return None
    if any(type(value) is not int for value in values):
        raise ConfigurationError("invalid", f"`{key}` in [reference.tpm] has a value that is not a number")
    return _filled(tuple(int(value) for value in values), key)


def _filled(values: tuple[_T, ...], key: str) -> tuple[_T, ...]:
    if not values:
        raise NotAcceptable("empty_policy", f"`{key}` is an empty list, which admits nothing")
    return values


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none."""
    del policy
    details, wanted = _details(claims), _reference(reference)
    found = [*_appraise_pcrs(details, wanted), *_appraise_log(details, wanted)]

    def need(condition: bool, leaf: str, message: str, hint: str = "") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint))

    need(
        wanted.ak is None or details.ak_sha256 in wanted.ak,
        "identity",
        "the attestation key is not one that the policy names",
        "`confide inspect` shows its SHA-256; each machine has its own key",
    )
    for pinned, actual, name in (
        (wanted.vm_ids, None if details.azure is None else details.azure.vm_id, "vm_ids"),
        (wanted.projects, None if details.instance is None else details.instance.project_id, "projects"),
        (wanted.zones, None if details.instance is None else details.instance.zone, "zones"),
        (
            wanted.instance_ids,
            None if details.instance is None else details.instance.instance_id,
            "instance_ids",
        ),
    ):
        need(
            pinned is None or actual in pinned,
            "identity",
            f"the machine is not one that the policy names under `{name}`",
        )
    need(
        wanted.secure_boot is None or _secure_boot(details, wanted) == wanted.secure_boot,
        "attributes",
        "secure boot is not shown to be as the policy wants it",
        "give the firmware's event log with --endorsements; on Azure the runtime claims say it",
    )
    need(
        details.firmware_version >= wanted.min_firmware,
        "below_minimum",
        "the TPM's firmware is older than the policy admits",
    )
    need(
        wanted.last_seen is None or _order(details.clock) >= _order(wanted.last_seen),
        "rollback",
        "the TPM's counters of resets and restarts, or its clock, went back behind what was seen",
        "the TPM's state was restored from an older one, or it is another TPM",
    )
    return tuple(found)


def _appraise_pcrs(details: TpmDetails, wanted: TpmReference) -> list[Reason]:
    values = details.pcrs.get(wanted.bank, {})
    found: list[Reason] = []
    for index, admitted in (wanted.pcr or {}).items():
        if index not in values:
            found.append(
                unacceptable(
                    "measurement",
                    f"the quote does not cover PCR {index} of the bank {wanted.bank}",
                    hint="quote every PCR that the policy names",
                )
            )
        elif values[index] not in admitted:
            found.append(
                unacceptable(
                    "measurement",
                    f"PCR {index} is not one of the values that the policy names",
                    hint="compare the event logs, or measure again if what boots was changed on purpose",
                )
            )
    return found


def _appraise_log(details: TpmDetails, wanted: TpmReference) -> list[Reason]:
    """A log that is given must replay to the firmware's PCRs. If one is required it must explain the PCRs up to 9 that the policy
    pins, or all of the firmware's if it pins none of them: after boot the operating system extends others.
    """
    log, required = details.boot_log, wanted.event_log == "required"
    if log is None or log.bank != wanted.bank:
        if not required:
            return []
        return [
            unacceptable(
                "measurement",
                "the policy asks for the firmware's event log, and none of that bank was given",
                hint="give /sys/kernel/security/tpm0/binary_bios_measurements with --endorsements",
            )
        ]
    wrong = [index for index in log.differs if index in _FIRMWARE_PCRS]
    if required:
        pinned = [index for index in wanted.pcr or () if index <= _LAST_FIRMWARE_PCR]
        must = {*(pinned or _FIRMWARE_PCRS), *wrong}
        wrong = sorted(index for index in must if index not in log.agrees)
    if not wrong:
        return []
    return [
        unacceptable(
            "measurement",
            f"the event log does not replay to the quoted PCRs {', '.join(map(str, wrong))}",
            hint="an event is missing, was added, changed or moved; or the log is of another boot",
        )
    ]


def _secure_boot(details: TpmDetails, wanted: TpmReference) -> bool | None:
    """What the firmware measured, where that is proven; otherwise what Azure's paravisor says of its machine.

    Only the policy's bank counts: one that the firmware left untouched is the system's own to extend.
    """
    log = details.boot_log
    measured = None if log is None or log.bank != wanted.bank else log.secure_boot
    if measured is not None:
        return measured
    return None if details.azure is None else details.azure.secure_boot


def _order(clock: wire.ClockInfo) -> tuple[int, int, int]:
    return clock.reset_count, clock.restart_count, clock.clock


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted quote. A TPM alone does not keep the host out of the machine's memory, and says nothing of it."""
    details, wanted = _details(claims), _reference(reference)
    named = (wanted.ak, wanted.vm_ids, wanted.instance_ids)
    return Vector(
        instance_identity=2 if any(one is not None for one in named) else 0,
        configuration={True: 2, False: 32, None: 0}[_secure_boot(details, wanted)],
        executables=3 if wanted.measured else 33,
        hardware=2,
        runtime_opaque=0 if details.trust == "platform" else 32,
    )


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values, by the TPM's names."""
    details = _details(claims)
    azure, instance, log = details.azure, details.instance, details.boot_log
    return {
        "trust": details.trust,
        "ak_sha256": details.ak_sha256.hex(),
        "signature": f"{details.scheme} {details.hash_name}",
        "extra_data": claims.report_data.hex(),
        "firmware_version": f"{details.firmware_version:#018x}",
        "clock": {
            "clock": details.clock.clock,
            "reset_count": details.clock.reset_count,
            "restart_count": details.clock.restart_count,
            "safe": details.clock.safe,
        },
        "pcrs": {
            bank: {str(index): value.hex() for index, value in sorted(values.items())}
            for bank, values in details.pcrs.items()
        },
        "azure": None
        if azure is None
        else {
            "vm_id": azure.vm_id,
            "user_data": None if azure.user_data is None else azure.user_data.hex(),
            "secure_boot": azure.secure_boot,
            "console_enabled": azure.console_enabled,
            "tpm_enabled": azure.tpm_enabled,
            "tpm_persisted": azure.tpm_persisted,
        },
        "google": None
        if instance is None
        else {
            "project_id": instance.project_id,
            "project_number": instance.project_number,
            "zone": instance.zone,
            "instance_id": instance.instance_id,
            "instance_name": instance.instance_name,
        },
        "event_log": None
        if log is None
        else {
            "bank": log.bank,
            "agrees": list(log.agrees),
            "differs": list(log.differs),
            "secure_boot": log.secure_boot,
            "events": log.events,
        },
    }


def _details(claims: Claims) -> TpmDetails:
    if not isinstance(claims.details, TpmDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> TpmReference:
    if not isinstance(reference, TpmReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
