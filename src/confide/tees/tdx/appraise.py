# SPDX-License-Identifier: Apache-2.0
"""Is a TDX guest the one that a policy wants? The table ``[reference.tdx]``, and claims against it.

[reference.tdx]
mrtd = ["<96 hex digits>", ...]            # mandatory; or "ANY", spelled out
rtmr0 = ["<96>"]   rtmr1 = ["<96>"]   rtmr2 = ["<96>"]   rtmr3 = ["<96>"]      # or "ANY"; absent ones are named as wildcards
mrconfigid = ["<96>"]   mrowner = ["<96>"]   mrownerconfig = ["<96>"]
mrseam = ["<96>"]                          # the TDX module itself; Intel's TCB levels judge it in any case
mrservicetd = ["<96>"]                     # service TDs (migration) that may be bound to the guest
allow_service_td = false                   # the default: a service TD that is not pinned is refused
sept_ve_disable = true                     # the default: SEPT_VE_DISABLE must be set; false does not ask
allow_attributes = ["perfmon"]             # of perfmon, pks, kl, migratable, icssd, lass, tpa: none by default
xfam = [0x602e7]                           # only these sets of processor features
event_log = "required"                     # "optional" by default: a log that is given must replay in any case
events = { "compose-hash" = ["<hex>"] }    # dstack: every event of this name in RTMR3, and there must be one
min_tcb_date, deny_advisories, fmspcs, ppids       # see tees/_dcap/appraise.py

DEBUG and the three profiling bits need the whole policy's ``allow_debug``. Bits without a name are always refused.
Source: Intel, "TDX Module Base Architecture Specification", ATTRIBUTES; "TDX DCAP Quoting Library API", appendix A.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import AttestationError, ConfigurationError, NotAcceptable
from confide.tees._dcap import appraise as platform
from confide.tees.tdx import logs
from confide.tees.tdx.authenticate import TdxDetails
from confide.wire import hexadecimal
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["TdxReference", "appraise", "describe", "parse_reference", "trustworthiness"]

_REGISTER: Final = 48
_RTMRS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
_FIXED: Final = ("mrconfigid", "mrowner", "mrownerconfig", "mrseam")
_DEBUG: Final = ("debug", "hgs_plus_prof", "perf_prof", "pmt_prof")
_OPT_IN: Final = ("perfmon", "pks", "kl", "migratable", "icssd", "lass", "tpa")
_MAX_EVENTS: Final = 64
_MAX_PAYLOAD: Final = 64 * 1024
_MAX_XFAM: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class TdxReference:
    """The parsed table; None where nothing is asked for. ``mrtd`` None is the spelled ``ANY``."""

    mrtd: tuple[bytes, ...] | None
    rtmrs: tuple[tuple[bytes, ...] | None, ...]
    fixed: Mapping[str, tuple[bytes, ...]]
    mrservicetd: tuple[bytes, ...] | None
    allow_service_td: bool
    sept_ve_disable: bool
    allow_attributes: tuple[str, ...]
    xfam: tuple[int, ...] | None
    event_log_required: bool
    events: Mapping[str, tuple[bytes, ...]]
    platform: platform.PlatformReference
    spelled: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether the firmware (MRTD), the loader and kernel (RTMR1) and what they were given (RTMR2) are pinned."""
        return self.mrtd is not None and self.rtmrs[1] is not None and self.rtmrs[2] is not None

    @property
    def wildcards(self) -> tuple[str, ...]:
        """The registers that are spelled ``ANY``, and of MRTD and RTMR0 to RTMR2 those that the table leaves open."""
        values = {"mrtd": self.mrtd, **dict(zip(_RTMRS[:3], self.rtmrs, strict=False))}
        absent = [name for name, pinned in values.items() if pinned is None]
        return tuple(dict.fromkeys((*absent, *self.spelled)))

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """None: only Intel's root is trusted."""
        return ()


def parse_reference(table: Mapping[str, object]) -> TdxReference:
    """The table ``[reference.tdx]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where ``mrtd`` is absent or empty.
    """
    fields = Fields(table, "[reference.tdx]", ConfigurationError)
    spelled = tuple(name for name in ("mrtd", *_RTMRS, *_FIXED, "mrservicetd") if table.get(name) == "ANY")

    def register(name: str) -> tuple[bytes, ...] | None:
        if name in spelled:
            fields.text(name)
            return None
        return digests(fields, name, _REGISTER, default=None)

    mrtd = register("mrtd")
    if mrtd is None and "mrtd" not in spelled:
        raise NotAcceptable(
            "empty_policy",
            "[reference.tdx] pins no MRTD",
            hint='add `mrtd = ["<96 hexadecimal digits>"]`, or spell `mrtd = "ANY"` if you mean it',
        )
    fixed = {name: values for name in _FIXED if (values := register(name)) is not None}
    mrservicetd = register("mrservicetd")
    reference = TdxReference(
        mrtd=mrtd,
        rtmrs=tuple(register(name) for name in _RTMRS),
        fixed=MappingProxyType(fixed),
        mrservicetd=mrservicetd,
        allow_service_td=fields.boolean("allow_service_td", default=False) or "mrservicetd" in spelled,
        sept_ve_disable=fields.boolean("sept_ve_disable", default=True),
        allow_attributes=_names(fields),
        xfam=_xfam(fields),
        event_log_required=_event_log(fields),
        events=_events(fields),
        platform=platform.parse_reference(fields),
        spelled=spelled,
    )
    fields.end()
    return reference


def _names(fields: Fields) -> tuple[str, ...]:
    values = fields.list_("allow_attributes", len(_OPT_IN), default=[])
    if not all(value in _OPT_IN for value in values):
        raise ConfigurationError(
            "invalid",
            "`allow_attributes` has a word that is none of the attributes that can be allowed",
            hint=f"known: {', '.join(_OPT_IN)}",
        )
    return tuple(values)


def _xfam(fields: Fields) -> tuple[int, ...] | None:
    values = fields.list_("xfam", 64, default=None)
    if values is None:
        return None
    if not values or not all(type(value) is int and 0 <= value <= _MAX_XFAM for value in values):
        raise ConfigurationError("invalid", "`xfam` is not a list of masks", hint="write [0x602e7]")
    return tuple(values)


def _event_log(fields: Fields) -> bool:
    word = fields.text("event_log", 16, default="optional")
    if word not in {"optional", "required"}:
        raise ConfigurationError("invalid", "`event_log` is neither optional nor required")
    return word == "required"


def _events(fields: Fields) -> Mapping[str, tuple[bytes, ...]]:
    table = fields.mapping("events", default={})
    if len(table) > _MAX_EVENTS:
        raise ConfigurationError("invalid", f"`events` has more than {_MAX_EVENTS} names")
    found: dict[str, tuple[bytes, ...]] = {}
    for name, values in table.items():
        if not name or ":" in name:
            raise ConfigurationError("invalid", "`events` has a name that is empty or has a colon")
        if not isinstance(values, list) or not values:
            raise NotAcceptable(
                "empty_policy",
                "`events` has a name without values",
                hint='write { "compose-hash" = ["<hexadecimal>"] }',
            )
        found[name] = tuple(_payload(value) for value in values)
    return MappingProxyType(found)


def _payload(value: object) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * _MAX_PAYLOAD:
        raise ConfigurationError("invalid", "`events` has a value that is not hexadecimal text")
    try:
        return hexadecimal.decode(value, what="events")
    except Exception as error:
        raise ConfigurationError(
            "invalid", "`events` has a value that is not hexadecimal", hint="lower case, two digits a byte"
        ) from error


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none.

    Raises ``malformed`` errors for an event log that is none.
    """
    details, wanted = _details(claims), _reference(reference)
    found: list[Reason] = []

    def need(condition: bool, leaf: str, message: str, hint: str = "") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint))

    need(
        wanted.mrtd is None or details.mrtd in wanted.mrtd,
        "measurement",
        "the firmware that was launched (MRTD) is not one that the policy names",
        "compare with the reference values of your image's release, or measure again if it was changed on purpose",
    )
    for name, pinned, actual in zip(_RTMRS, wanted.rtmrs, details.rtmrs, strict=True):
        need(
            pinned is None or actual in pinned,
            "measurement",
            f"`{name}` is not one that the policy names",
            "`confide inspect` on the event log shows what was measured into it",
        )
    for name, pinned in wanted.fixed.items():
        need(getattr(details, name) in pinned, "measurement", f"`{name}` is not one that the policy names")
    found += _attributes(details, wanted, policy)
    found += _service_td(details, wanted)
    found += platform.appraise(details, wanted.platform, policy)
    found += logs.appraise(
        details.event_logs,
        details.rtmrs,
        pinned=tuple(values is not None for values in wanted.rtmrs),
        required=wanted.event_log_required,
        events=wanted.events,
    )
    return tuple(found)


def _attributes(details: TdxDetails, wanted: TdxReference, policy: AppraisalPolicy) -> list[Reason]:
    found: list[Reason] = []
    attributes = details.td_attributes

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(unacceptable(leaf, message, hint=hint))

    if not policy.allow_debug and (on := [name for name in _DEBUG if attributes.has(name)]):
        refuse(
            "debug",
            f"the TD's attributes lay it open to the host ({', '.join(on)})",
            "launch without debugging; `allow_debug = true` accepts this for development",
        )
    if wanted.sept_ve_disable and not attributes.has("sept_ve_disable"):
        refuse(
            "attributes",
            "SEPT_VE_DISABLE is not set, so that the host can raise #VE in the guest by taking its pages away",
            "launch with the attribute; `sept_ve_disable = false` accepts a guest that is known to cope, such as"
            " Azure's paravisor",
        )
    for name in _OPT_IN:
        if attributes.has(name) and name not in wanted.allow_attributes:
            refuse(
                "attributes",
                f"the TD has the attribute `{name}`, which the policy does not allow",
                f'add it to `allow_attributes = ["{name}"]` if you mean to',
            )
    if attributes.reserved:
        refuse("attributes", "the TD has attributes that this version does not know")
    if wanted.xfam is not None and details.xfam not in wanted.xfam:
        refuse("attributes", "`xfam` is not one that the policy names")
    return found


def _service_td(details: TdxDetails, wanted: TdxReference) -> list[Reason]:
    """MRSERVICETD: what may migrate the TD. A body of version 1.0 has none, and cannot meet a pin."""
    actual = details.mrservicetd
    if wanted.mrservicetd is not None:
        if actual in wanted.mrservicetd:
            return []
        return [unacceptable("measurement", "`mrservicetd` is not one that the policy names")]
    if actual is None or not any(actual) or wanted.allow_service_td:
        return []
    return [
        unacceptable(
            "attributes",
            "a service TD is bound to the guest and can reach into it",
            hint='pin it: `mrservicetd = ["<96 hexadecimal digits>"]`; `allow_service_td = true` accepts any',
        )
    ]


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted guest."""
    details, wanted = _details(claims), _reference(reference)
    exposed = any(details.td_attributes.has(name) for name in _DEBUG)
    lenient = (
        not details.td_attributes.has("sept_ve_disable")
        or details.td_attributes.has("migratable")
        or (details.mrservicetd is not None and any(details.mrservicetd) and wanted.mrservicetd is None)
        or "Configuration" in details.tcb_status
    )
    return Vector(
        instance_identity=2 if wanted.platform.ppids is not None else 0,
        configuration=96 if exposed else 32 if lenient else 2,
        executables=3 if wanted.measured else 33,
        hardware=platform.hardware(details.tcb_status),
        runtime_opaque=96 if exposed else 2,
    )


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values, by Intel's names."""
    details = _details(claims)
    return {
        "quote_version": details.quote_version,
        "body": details.body,
        "report_data": claims.report_data.hex(),
        "mrtd": details.mrtd.hex(),
        **{name: value.hex() for name, value in zip(_RTMRS, details.rtmrs, strict=True)},
        "mrconfigid": details.mrconfigid.hex(),
        "mrowner": details.mrowner.hex(),
        "mrownerconfig": details.mrownerconfig.hex(),
        "mrservicetd": None if details.mrservicetd is None else details.mrservicetd.hex(),
        "td_attributes": {
            "value": f"{details.td_attributes.value:#x}",
            **{bit.name: details.td_attributes.has(bit.name) for bit in details.td_attributes.BITS},
        },
        "xfam": f"{details.xfam:#x}",
        "tee_tcb_svn": details.tee_tcb_svn.hex(),
        "tee_tcb_svn_2": None if details.tee_tcb_svn_2 is None else details.tee_tcb_svn_2.hex(),
        "mrseam": details.mrseam.hex(),
        "mrsignerseam": details.mrsignerseam.hex(),
        "seam_attributes": details.seam_attributes.hex(),
        "tdx_module_tcb": None if details.module is None else platform.evaluation(details.module),
        **platform.describe(details),
        "event_logs": logs.describe(details.event_logs, details.rtmrs),
    }


def _details(claims: Claims) -> TdxDetails:
    if not isinstance(claims.details, TdxDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> TdxReference:
    if not isinstance(reference, TdxReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
