# SPDX-License-Identifier: Apache-2.0
"""Intel Trust Authority: JWT (PS384, or RS256) about SGX, TDX, SEV-SNP and NVIDIA GPUs, flat (version 1) or composite.

The token carries no `aud`. Its nonce for a relying party is the data that the attester held (`attester_held_data`), which
Intel has compared with the report's data, and the report's data where there is none. Source: Intel's documentation of
attestation tokens. No real token has been seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confide.attestation.result import unacceptable
from confide.attestation.tokens.said import Said, flag, hex_bytes, member
from confide.errors import MalformedError
from confide.wire import base64_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confide.errors import Reason

ALGORITHMS: Final = frozenset({"PS384", "RS256"})
MEASURED: Final = frozenset({"tdx_mrtd", "sgx_mrenclave", "sevsnp_measurement"})
UNPROVEN: Final = ("no token of Intel Trust Authority has been seen; its claims are read as documented",)

_HARDWARE: Final = {"tdx": "tdx", "sgx": "sgx", "sevsnp": "snp", "nvgpu": "nvidia"}
_REGISTERS: Final = {
    "tdx": {"mrtd": ("tdx_mrtd", 48), **{f"rtmr{i}": (f"tdx_rtmr{i}", 48) for i in range(4)}},
    "sgx": {"mrenclave": ("sgx_mrenclave", 32), "mrsigner": ("sgx_mrsigner", 32)},
    "sevsnp": {"measurement": ("sevsnp_measurement", 48)},
    "nvgpu": {},
}
_CPU: Final = ("tdx", "sgx", "sevsnp")
_MEASURED_WELL: Final = frozenset({"success", "comparison-successful"})


def recognises(claims: Mapping[str, Any]) -> bool:
    """Whether a payload is of this kind."""
    return "attester_type" in claims or ("ver" in claims and any(name in claims for name in _HARDWARE))


def read(claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """The claims in common terms."""
    _ = parts
    nodes = _nodes(claims)
    measurements: dict[str, bytes] = {}
    debugs: list[bool | None] = []
    statuses: list[str] = []
    objections: list[Reason] = []
    for name, node in nodes.items():
        if name in _CPU:
            debugs.append(flag(node, f"{name}_is_debuggable"))
        elif name == "nvgpu":
            gpus = list(_leaves(node))
            debugs.append(_gpu_debug(gpus))
            objections += _gpu_objections(gpus)
        for register, (claim, length) in _REGISTERS.get(name, {}).items():
            value = hex_bytes(node, claim, length)
            if value is not None:
                measurements[register] = value
        status = member(node, "attester_tcb_status", str)
        statuses += [] if status is None else [status]
    return Said(
        tree=claims,
        hardware=tuple(_HARDWARE.get(name, "unknown") for name in nodes),
        debug=True if True in debugs else None if None in debugs or not debugs else False,
        nonce=_nonce(nodes),
        measurements=measurements,
        statuses=tuple(statuses),
        objections=tuple(objections),
    )


def _leaves(value: object) -> Iterator[tuple[str, Any]]:
    """Every named claim about GPUs, however deep: how Intel nests those of several is not known from real tokens."""
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _leaves(inner)


def _gpu_debug(gpus: list[tuple[str, Any]]) -> bool | None:
    found = [value for name, value in gpus if name == "dbgstat"]
    return any(value != "disabled" for value in found) if found else None


def _gpu_objections(gpus: list[tuple[str, Any]]) -> list[Reason]:
    found = []
    measured = [value for name, value in gpus if name == "measres"]
    if not measured or any(not isinstance(value, str) or value not in _MEASURED_WELL for value in measured):
        found.append(
            unacceptable("measurement", "Intel's service does not say that a GPU's measurements are known")
        )
    if any(value is False for name, value in gpus if name == "secboot" or name.startswith("x-nvidia-")):
        found.append(unacceptable("attributes", "Intel's service says that a check of a GPU failed"))
    return found


def _nodes(claims: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The part for each attester: the whole of a flat token, one member each of a composite one."""
    kind = member(claims, "attester_type", str)
    if kind is not None:
        return {kind.lower().replace("-", ""): claims}
    nodes = {name: member(claims, name, dict) for name in _HARDWARE if name in claims}
    if sum(name in _CPU for name in nodes) > 1:
        raise MalformedError("unknown_format", "the token speaks of more than one CPU's TEE")
    return {name: node for name, node in nodes.items() if node is not None}


def _nonce(nodes: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    for name, node in nodes.items():
        held = member(node, "attester_held_data", str)
        if held:
            return base64_text.decode(held, what="data held by the attester", max_length=4096)
        found = hex_bytes(node, f"{name}_report_data" if name in _CPU else "", 64)
        if found is not None:
            return found
    return None
