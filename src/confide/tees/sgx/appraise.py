# SPDX-License-Identifier: Apache-2.0
"""Is an SGX enclave the one that a policy wants? The table ``[reference.sgx]``, and claims against it.

[reference.sgx]
mrenclave = ["<64 hex digits>", ...]       # these enclaves; or "ANY", spelled out; or instead of it all three of:
mrsigner = ["<64 hex digits>"]             # these signers,
isvprodid = 1                              # of this product alone,
min_isvsvn = 3                             # from this security version on
attributes = { mode64bit = true, cet = true, kss = true, aex_notify = true }      # bits that must be so
allow_attributes = ["provision_key", "einittoken_key"]      # none by default: they are for Intel's own enclaves
xfrm = [0xe7]                              # only these sets of processor features
miscselect = [0]                           # only these
configid = ["<128 hex digits>"]   min_configsvn = 1   isvextprodid = ["<32>"]   isvfamilyid = ["<32>"]      # need KSS
min_tcb_date, deny_advisories, fmspcs, ppids       # see tees/_dcap/appraise.py

DEBUG needs the whole policy's ``allow_debug``. Bits without a name are always refused. CONFIGID and CONFIGSVN are set by the
host that starts the enclave and are no part of MRENCLAVE.
Source: Intel SDM, volume 3D, sections 36.7 (SECS) and 36.16 (REPORT).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import AttestationError, ConfigurationError, NotAcceptable
from confide.tees._dcap import appraise as platform
from confide.tees.sgx.authenticate import SgxDetails
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["SgxReference", "appraise", "describe", "parse_reference", "trustworthiness"]

_U16: Final = (1 << 16) - 1
_U32: Final = (1 << 32) - 1
_U63: Final = (1 << 63) - 1
_PRIVILEGED: Final = ("provision_key", "einittoken_key")
_CHOSEN: Final = ("mode64bit", "cet", "kss", "aex_notify")
_SEPARATED: Final = {"configid": 64, "isvextprodid": 16, "isvfamilyid": 16}


@dataclass(frozen=True, slots=True)
class SgxReference:
    """The parsed table; None where nothing is asked for."""

    mrenclave: tuple[bytes, ...] | None
    mrsigner: tuple[bytes, ...] | None
    isvprodid: int | None
    min_isvsvn: int | None
    attributes: Mapping[str, bool]
    allow_attributes: tuple[str, ...]
    xfrm: tuple[int, ...] | None
    miscselect: tuple[int, ...] | None
    separated: Mapping[str, tuple[bytes, ...]]
    min_configsvn: int
    platform: platform.PlatformReference

    @property
    def measured(self) -> bool:
        """Whether the enclave is pinned, by its measurement or by its signer, product and security version."""
        return self.mrenclave is not None or self.mrsigner is not None

    @property
    def wildcards(self) -> tuple[str, ...]:
        """``mrenclave`` if it is spelled ``ANY`` (and no signer is named instead)."""
        return () if self.measured else ("mrenclave",)

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """None: only Intel's root is trusted."""
        return ()


def parse_reference(table: Mapping[str, object]) -> SgxReference:
    """The table ``[reference.sgx]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where neither an enclave nor a signer with product and version is named.
    """
    fields = Fields(table, "[reference.sgx]", ConfigurationError)
    spelled = table.get("mrenclave") == "ANY"
    mrenclave = None
    if spelled:
        fields.text("mrenclave")
    else:
        mrenclave = digests(fields, "mrenclave", 32, default=None)
    mrsigner = digests(fields, "mrsigner", 32, default=None)
    isvprodid = fields.integer("isvprodid", 0, _U16, default=None)
    min_isvsvn = fields.integer("min_isvsvn", 0, _U16, default=None)
    if mrenclave is None and not spelled and mrsigner is None:
        raise NotAcceptable(
            "empty_policy",
            "[reference.sgx] pins no enclave and no signer",
            hint='add `mrenclave = ["<64 hexadecimal digits>"]`, or `mrsigner` with `isvprodid` and `min_isvsvn`',
        )
    if mrsigner is not None and mrenclave is None and (isvprodid is None or min_isvsvn is None):
        raise NotAcceptable(
            "empty_policy",
            "[reference.sgx] names a signer without a product and a security version: any enclave that the"
            " signer ever made would do",
            hint="add `isvprodid` and `min_isvsvn`",
        )
    separated = {
        name: values
        for name, length in _SEPARATED.items()
        if (values := digests(fields, name, length, default=None)) is not None
    }
    reference = SgxReference(
        mrenclave=mrenclave,
        mrsigner=mrsigner,
        isvprodid=isvprodid,
        min_isvsvn=min_isvsvn,
        attributes=_flags(fields),
        allow_attributes=_names(fields),
        xfrm=_masks(fields, "xfrm", _U63),
        miscselect=_masks(fields, "miscselect", _U32),
        separated=MappingProxyType(separated),
        min_configsvn=fields.integer("min_configsvn", 0, _U16, default=0),
        platform=platform.parse_reference(fields),
    )
    fields.end()
    return reference


def _flags(fields: Fields) -> Mapping[str, bool]:
    inner = Fields(
        fields.mapping("attributes", default={}), "`attributes` in [reference.sgx]", ConfigurationError
    )
    flags = {name: inner.boolean(name) for name in _CHOSEN if inner.has(name)}
    inner.end()
    return MappingProxyType(flags)


def _names(fields: Fields) -> tuple[str, ...]:
    values = fields.list_("allow_attributes", len(_PRIVILEGED), default=[])
    if not all(value in _PRIVILEGED for value in values):
        raise ConfigurationError(
            "invalid",
            "`allow_attributes` has a word that is none of the attributes that can be allowed",
            hint=f"known: {', '.join(_PRIVILEGED)}",
        )
    return tuple(values)


def _masks(fields: Fields, key: str, highest: int) -> tuple[int, ...] | None:
    values = fields.list_(key, 64, default=None)
    if values is None:
        return None
    if not values or not all(type(value) is int and 0 <= value <= highest for value in values):
        raise ConfigurationError("invalid", f"`{key}` is not a list of masks", hint=f"write `{key} = [0xe7]`")
    return tuple(values)


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none."""
    details, wanted = _details(claims), _reference(reference)
    found: list[Reason] = []

    def need(condition: bool, leaf: str, message: str, hint: str = "", stage: str = "policy") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint, stage=stage))

    need(
        wanted.mrenclave is None or details.mrenclave in wanted.mrenclave,
        "measurement",
        "the enclave (MRENCLAVE) is not one that the policy names",
        "`confide measure` reads the measurement out of a signed enclave's SIGSTRUCT",
    )
    need(
        wanted.mrsigner is None or details.mrsigner in wanted.mrsigner,
        "signer",
        "the enclave's signer (MRSIGNER) is not one that the policy names",
    )
    need(
        wanted.isvprodid is None or details.isvprodid == wanted.isvprodid,
        "measurement",
        "the enclave is another product of its signer (ISVPRODID) than the policy names",
    )
    need(
        wanted.min_isvsvn is None or details.isvsvn >= wanted.min_isvsvn,
        "below_minimum",
        "the enclave's security version (ISVSVN) is below the minimum",
        stage="tcb",
    )
    found += _attributes(details, wanted, policy)
    found += _separation(details, wanted)
    found += platform.appraise(details, wanted.platform, policy)
    return tuple(found)


def _attributes(details: SgxDetails, wanted: SgxReference, policy: AppraisalPolicy) -> list[Reason]:
    found: list[Reason] = []
    flags = details.flags

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(unacceptable(leaf, message, hint=hint))

    if flags.has("debug") and not policy.allow_debug:
        refuse(
            "debug",
            "the enclave was launched in debug mode, in which the host reads and writes its memory",
            "sign and launch it without debugging; `allow_debug = true` accepts this for development",
        )
    if not flags.has("init"):
        refuse("attributes", "the report is of an enclave that was never initialised")
    for name in _PRIVILEGED:
        if flags.has(name) and name not in wanted.allow_attributes:
            refuse(
                "attributes",
                f"the enclave has the attribute `{name}`, which is for Intel's own enclaves",
                f'`allow_attributes = ["{name}"]` accepts it',
            )
    for name, value in wanted.attributes.items():
        if flags.has(name) != value:
            refuse("attributes", f"the enclave's attribute `{name}` is not {str(value).lower()}")
    if flags.reserved:
        refuse("attributes", "the enclave has attributes that this version does not know")
    if wanted.xfrm is not None and details.xfrm not in wanted.xfrm:
        refuse("attributes", "`xfrm` is not one that the policy names")
    if wanted.miscselect is not None and details.miscselect not in wanted.miscselect:
        refuse("attributes", "`miscselect` is not one that the policy names")
    return found


def _separation(details: SgxDetails, wanted: SgxReference) -> list[Reason]:
    """The fields of Key Separation and Sharing, which say nothing unless the enclave has that attribute."""
    if not wanted.separated and not wanted.min_configsvn:
        return []
    if not details.flags.has("kss"):
        return [unacceptable("attributes", "the policy names fields of KSS, which the enclave does not have")]
    found = [
        unacceptable("measurement", f"`{name}` is not one that the policy names")
        for name, pinned in wanted.separated.items()
        if getattr(details, name) not in pinned
    ]
    if details.configsvn < wanted.min_configsvn:
        found.append(
            unacceptable(
                "below_minimum",
                "the enclave's configuration version (CONFIGSVN) is below the minimum",
                stage="tcb",
            )
        )
    return found


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted enclave."""
    details, wanted = _details(claims), _reference(reference)
    exposed = details.flags.has("debug")
    lenient = "Configuration" in details.tcb_status or any(details.flags.has(name) for name in _PRIVILEGED)
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
        "report_data": claims.report_data.hex(),
        "mrenclave": details.mrenclave.hex(),
        "mrsigner": details.mrsigner.hex(),
        "isvprodid": details.isvprodid,
        "isvsvn": details.isvsvn,
        "attributes": {
            "value": f"{details.flags.value:#x}",
            **{bit.name: details.flags.has(bit.name) for bit in details.flags.BITS},
        },
        "xfrm": f"{details.xfrm:#x}",
        "miscselect": f"{details.miscselect:#x}",
        "configid": details.configid.hex(),
        "configsvn": details.configsvn,
        "isvextprodid": details.isvextprodid.hex(),
        "isvfamilyid": details.isvfamilyid.hex(),
        "cpusvn": details.cpusvn.hex(),
        **platform.describe(details),
    }


def _details(claims: Claims) -> SgxDetails:
    if not isinstance(claims.details, SgxDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> SgxReference:
    if not isinstance(reference, SgxReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
