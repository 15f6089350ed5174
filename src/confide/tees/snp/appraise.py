# SPDX-License-Identifier: Apache-2.0
"""Is an SEV-SNP guest the one that a policy wants? The table ``[reference.snp]``, and claims against it.

[reference.snp]
measurement = ["<96 hex digits>", ...]     # mandatory; or "ANY", spelled out
vmpl = [0]                                 # the default
min_tcb = { bootloader = 4, tee = 0, snp = 23, microcode = 72 }     # of the reported TCB; on Turin also fmc
min_tcb = { Milan = { snp = 23 }, Genoa = { snp = 22 } }            # or by product line: others are then refused
min_launch_tcb = { snp = 23 }              # of the TCB at launch
min_guest_svn = 1
host_data = ["<64 hex digits>"]
id_key_digest = ["<96>"]    author_key_digest = ["<96>"]
family_id = ["<32>"]        image_id = ["<32>"]
chip_ids = ["<128>"]                       # only these machines
products = ["Genoa", "Turin"]              # only these product lines
deny_products = ["Milan"]
signing_keys = ["vcek", "vlek"]            # the default
min_abi = "1.55"                           # the lowest firmware ABI that the guest's own policy may admit
guest_policy = { smt = false, single_socket = true }
platform_info = { alias_check_complete = true, smt_en = false, ciphertext_hiding_dram_en = true }
mitigations = [0, 1]                       # bits that must be set at launch and now; needs report version 5
allow_migrate_ma = false                   # the default
allow_provisional_firmware = true          # the default; false refuses committed firmware older than the current
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import AttestationError, ConfigurationError, NotAcceptable
from confide.tees.snp import endorse, wire
from confide.tees.snp.authenticate import SnpDetails
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["SnpReference", "appraise", "describe", "parse_reference", "trustworthiness"]

_LEVELS: Final = ("bootloader", "tee", "snp", "microcode", "fmc")
_ABI = re.compile(r"(\d{1,3})\.(\d{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Floor:
    """Lowest levels of a TCB: for every product, or by product line (then a line that is not named has no floor it meets)."""

    everywhere: Mapping[str, int] | None
    by_product: Mapping[str, Mapping[str, int]]

    def of(self, product: str) -> Mapping[str, int] | None:
        return self.everywhere if self.everywhere is not None else self.by_product.get(product)


@dataclass(frozen=True, slots=True)
class SnpReference:
    """The parsed table; None where nothing is asked for. ``measurement`` None is the spelled ``ANY``."""

    measurement: tuple[bytes, ...] | None
    vmpl: tuple[int, ...]
    min_tcb: _Floor | None
    min_launch_tcb: _Floor | None
    min_guest_svn: int
    host_data: tuple[bytes, ...] | None
    id_key_digest: tuple[bytes, ...] | None
    author_key_digest: tuple[bytes, ...] | None
    family_id: tuple[bytes, ...] | None
    image_id: tuple[bytes, ...] | None
    chip_ids: tuple[bytes, ...] | None
    products: tuple[str, ...]
    signing_keys: tuple[str, ...]
    min_abi: tuple[int, int]
    guest_policy: Mapping[str, bool]
    platform_info: Mapping[str, bool]
    mitigations: int
    allow_migrate_ma: bool
    allow_provisional_firmware: bool

    @property
    def measured(self) -> bool:
        """Whether the launch measurement is pinned."""
        return self.measurement is not None

    @property
    def wildcards(self) -> tuple[str, ...]:
        """``measurement`` if it is spelled ``ANY``."""
        return () if self.measured else ("measurement",)

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """Nothing: a table for SNP pins no key of its own."""
        return ()


def parse_reference(table: Mapping[str, object]) -> SnpReference:
    """The table ``[reference.snp]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where ``measurement`` is absent or empty.
    """
    fields = Fields(table, "[reference.snp]", ConfigurationError)
    measurement: tuple[bytes, ...] | None = None
    if table.get("measurement") == "ANY":
        fields.text("measurement")
    else:
        measurement = digests(fields, "measurement", 48, default=None)
        if measurement is None:
            raise NotAcceptable(
                "empty_policy",
                "[reference.snp] pins no measurement",
                hint='add `measurement = ["<96 hexadecimal digits>"]`, or spell `measurement = "ANY"` if you mean it',
            )
    allowed = _words(fields, "products", tuple(endorse.PRODUCTS), default=tuple(endorse.PRODUCTS))
    denied = _words(fields, "deny_products", tuple(endorse.PRODUCTS), default=())
    chip_ids = digests(fields, "chip_ids", 64, default=None)
    if chip_ids is not None and not all(any(chip) for chip in chip_ids):
        raise ConfigurationError(
            "invalid", "`chip_ids` has the masked id of all zeros, which every machine can show"
        )
    reference = SnpReference(
        measurement=measurement,
        vmpl=_integers(fields, "vmpl", 0, 3, default=(0,)),
        min_tcb=_floor(fields, "min_tcb"),
        min_launch_tcb=_floor(fields, "min_launch_tcb"),
        min_guest_svn=fields.integer("min_guest_svn", 0, (1 << 32) - 1, default=0),
        host_data=digests(fields, "host_data", 32, default=None),
        id_key_digest=digests(fields, "id_key_digest", 48, default=None),
        author_key_digest=digests(fields, "author_key_digest", 48, default=None),
        family_id=digests(fields, "family_id", 16, default=None),
        image_id=digests(fields, "image_id", 16, default=None),
        chip_ids=chip_ids,
        products=tuple(name for name in allowed if name not in denied),
        signing_keys=_words(fields, "signing_keys", ("vcek", "vlek"), default=("vcek", "vlek")),
        min_abi=_abi(fields.text("min_abi", 8, default="0.0")),
        guest_policy=_flags(fields, "guest_policy", wire.GuestPolicy.BITS),
        platform_info=_flags(fields, "platform_info", wire.PlatformInfo.BITS),
        mitigations=sum(1 << bit for bit in set(_integers(fields, "mitigations", 0, 63, default=()))),
        allow_migrate_ma=fields.boolean("allow_migrate_ma", default=False),
        allow_provisional_firmware=fields.boolean("allow_provisional_firmware", default=True),
    )
    fields.end()
    if not reference.products:
        raise NotAcceptable(
            "empty_policy", "[reference.snp] admits no product line", hint="check `deny_products`"
        )
    return reference


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none."""
    details, wanted = _details(claims), _reference(reference)
    found: list[Reason] = []

    def need(condition: bool, leaf: str, message: str, hint: str = "", stage: str = "policy") -> None:  # noqa: FBT001
        if not condition:
            found.append(unacceptable(leaf, message, hint=hint, stage=stage))

    need(
        wanted.measurement is None or claims.measurements["measurement"] in wanted.measurement,
        "measurement",
        "the launch measurement is not one that the policy names",
        "compare the manifests, or measure again if the image was changed on purpose",
    )
    need(
        details.vmpl in wanted.vmpl,
        "vmpl",
        "the report was asked for at a privilege level that the policy does not admit",
    )
    bits = details.policy
    need(
        policy.allow_debug or not bits.has("debug"),
        "debug",
        "the guest's policy lets the host debug it, which shows its memory",
        "launch without debugging; `allow_debug = true` accepts this for development",
    )
    need(
        wanted.allow_migrate_ma or not bits.has("migrate_ma"),
        "attributes",
        "the guest's policy lets a migration agent move it",
        "set `allow_migrate_ma = true` if you trust that agent",
    )
    need(
        bool(bits.value & bits.RESERVED_MUST_BE_ONE),
        "attributes",
        "bit 17 of the guest's policy, which must be 1, is 0",
    )
    need(
        (bits.abi_major, bits.abi_minor) >= wanted.min_abi,
        "attributes",
        "the guest's policy admits firmware with an older ABI than the policy names",
    )
    for name, value in wanted.guest_policy.items():
        need(
            bits.has(name) == value,
            "attributes",
            f"`{name}` in the guest's policy is not {str(value).lower()}",
        )
    for name, value in wanted.platform_info.items():
        need(
            details.platform_info.has(name) == value,
            "attributes",
            f"`{name}` of the platform is not {str(value).lower()}",
        )
    need(details.product in wanted.products, "attributes", "the policy does not admit this product line")
    need(
        details.signing_key in wanted.signing_keys,
        "attributes",
        "the policy does not admit this kind of signing key",
    )
    need(
        wanted.chip_ids is None or details.chip_id in wanted.chip_ids,
        "identity",
        "the machine is not one that the policy names",
    )
    found += _signers(details, wanted)
    for pinned, actual, leaf, name in (
        (wanted.host_data, details.host_data, "measurement", "host_data"),
        (wanted.family_id, details.family_id, "attributes", "family_id"),
        (wanted.image_id, details.image_id, "attributes", "image_id"),
    ):
        need(pinned is None or actual in pinned, leaf, f"`{name}` is not one that the policy names")
    found += _tcb(details, wanted)
    return tuple(found)


def _signers(details: SnpDetails, wanted: SnpReference) -> list[Reason]:
    found: list[Reason] = []
    if details.author_key_enabled and not any(details.author_key_digest):
        found.append(
            unacceptable("signer", "the report says that an author key signed the guest, and names none")
        )
    for pinned, actual, name in (
        (wanted.id_key_digest, details.id_key_digest, "id_key_digest"),
        (wanted.author_key_digest, details.author_key_digest, "author_key_digest"),
    ):
        if pinned is not None and actual not in pinned:
            found.append(unacceptable("signer", f"`{name}` is not one that the policy names"))
    return found


def _tcb(details: SnpDetails, wanted: SnpReference) -> list[Reason]:
    found: list[Reason] = []

    def refuse(leaf: str, message: str, hint: str = "") -> None:
        found.append(unacceptable(leaf, message, hint=hint, stage="tcb"))

    for floor, tcb, which in (
        (wanted.min_tcb, details.reported_tcb, "reported"),
        (wanted.min_launch_tcb, details.launch_tcb, "launch"),
    ):
        if floor is None:
            continue
        least = floor.of(details.product)
        if least is None:
            refuse("below_minimum", f"the policy has no minimum of the {which} TCB for this product line")
            continue
        for name in tcb.below(least):
            refuse(
                "below_minimum",
                f"`{name}` of the {which} TCB is below the minimum",
                "update the machine's firmware",
            )
    if details.guest_svn < wanted.min_guest_svn:
        refuse("below_minimum", "the guest's security version is below the minimum")
    if wanted.mitigations:
        for vector, which in ((details.launch_mit_vector, "at launch"), (details.current_mit_vector, "now")):
            if vector is None or vector & wanted.mitigations != wanted.mitigations:
                refuse("below_minimum", f"a mitigation that the policy asks for is not in force {which}")
    if not wanted.allow_provisional_firmware and (
        details.committed_tcb.below(details.current_tcb.to_json())
        or details.committed_version < details.current_version
    ):
        refuse(
            "out_of_date", "the firmware is provisional: the host can still roll it back to the committed one"
        )
    return found


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted guest."""
    details, wanted = _details(claims), _reference(reference)
    configuration = 2
    if details.policy.has("migrate_ma"):
        configuration = 32
    if details.policy.has("debug"):
        configuration = 96
    return Vector(
        instance_identity=2 if wanted.chip_ids is not None else 0,
        configuration=configuration,
        executables=3 if wanted.measured else 33,
        hardware=2,
        runtime_opaque=96 if details.policy.has("debug") else 2,
    )


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values, by AMD's names."""
    details = _details(claims)
    mitigations = {"launch": details.launch_mit_vector, "current": details.current_mit_vector}
    return {
        "report_version": details.version,
        "product": details.product,
        "signing_key": details.signing_key,
        "csp_id": details.csp_id,
        "report_data": claims.report_data.hex(),
        "measurement": claims.measurements["measurement"].hex(),
        "host_data": details.host_data.hex(),
        "vmpl": details.vmpl,
        "guest_svn": details.guest_svn,
        "guest_policy": {
            "value": f"{details.policy.value:#x}",
            "abi": f"{details.policy.abi_major}.{details.policy.abi_minor}",
            **{bit.name: details.policy.has(bit.name) for bit in wire.GuestPolicy.BITS},
        },
        "platform_info": {bit.name: details.platform_info.has(bit.name) for bit in wire.PlatformInfo.BITS},
        "reported_tcb": details.reported_tcb.to_json(),
        "current_tcb": details.current_tcb.to_json(),
        "committed_tcb": details.committed_tcb.to_json(),
        "launch_tcb": details.launch_tcb.to_json(),
        "mitigations": mitigations if details.current_mit_vector is not None else None,
        "family_id": details.family_id.hex(),
        "image_id": details.image_id.hex(),
        "id_key_digest": details.id_key_digest.hex(),
        "author_key_digest": details.author_key_digest.hex(),
        "report_id": details.report_id.hex(),
        "report_id_ma": details.report_id_ma.hex(),
        "chip_id": details.chip_id.hex(),
        "firmware": ".".join(str(part) for part in details.current_version),
        "committed_firmware": ".".join(str(part) for part in details.committed_version),
    }


def _details(claims: Claims) -> SnpDetails:
    if not isinstance(claims.details, SnpDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> SnpReference:
    if not isinstance(reference, SnpReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference


def _words(fields: Fields, key: str, known: tuple[str, ...], *, default: tuple[str, ...]) -> tuple[str, ...]:
    values = fields.list_(key, 16, default=None)
    if values is None:
        return default
    if not values:
        raise NotAcceptable("empty_policy", f"`{key}` is an empty list, which admits nothing")
    if any(value not in known for value in values):
        raise ConfigurationError(
            "invalid", f"`{key}` has a word that is not known", hint=f"known: {', '.join(known)}"
        )
    return tuple(values)


def _integers(fields: Fields, key: str, low: int, high: int, *, default: tuple[int, ...]) -> tuple[int, ...]:
    values = fields.list_(key, 64, default=None)
    if values is None:
        return default
    if not values:
        raise NotAcceptable("empty_policy", f"`{key}` is an empty list, which admits nothing")
    if any(type(value) is not int or not low <= value <= high for value in values):
        raise ConfigurationError("invalid", f"`{key}` is not a list of integers from {low} to {high}")
    return tuple(values)


def _levels(table: Mapping[str, Any], key: str) -> Mapping[str, int]:
    inner = Fields(table, f"`{key}` in [reference.snp]", ConfigurationError)
    levels = {name: inner.integer(name, 0, 255) for name in _LEVELS if inner.has(name)}
    inner.end()
    if not levels:
        raise NotAcceptable("empty_policy", f"`{key}` names no level")
    return levels


def _floor(fields: Fields, key: str) -> _Floor | None:
    table = fields.mapping(key, default=None)
    if table is None:
        return None
    if not set(table) & set(endorse.PRODUCTS):
        return _Floor(_levels(table, key), {})
    outer = Fields(table, f"`{key}` in [reference.snp]", ConfigurationError)
    by_product = {name: _levels(outer.mapping(name), key) for name in endorse.PRODUCTS if outer.has(name)}
    outer.end()
    return _Floor(None, by_product)


def _flags(fields: Fields, key: str, bits: tuple[wire.Bits, ...]) -> Mapping[str, bool]:
    table = fields.mapping(key, default={})
    inner = Fields(table, f"`{key}` in [reference.snp]", ConfigurationError)
    flags = {bit.name: inner.boolean(bit.name) for bit in bits if inner.has(bit.name)}
    inner.end()
    return flags


def _abi(text: str) -> tuple[int, int]:
    found = _ABI.fullmatch(text)
    if found is None:
        raise ConfigurationError("invalid", "`min_abi` is not a version", hint='write it like "1.55"')
    return int(found[1]), int(found[2])
