# SPDX-License-Identifier: Apache-2.0
"""Microsoft Azure Attestation: JWT (RS256) about an SGX enclave, an SNP or TDX guest, or an Azure VM with its isolating TEE.

The token carries no `aud`. Its nonce is, for an enclave or a guest attested itself, the hardware's report data; for a VM
(`azurevm`) the nonce of the client payload, and none where the client gave none. Source: Azure's documentation of claim sets.
Only decoded claims of one VM have been seen, no signed token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confide.attestation.result import unacceptable
from confide.attestation.tokens.said import Said, flag, hex_bytes, member
from confide.wire import base64_text

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS: Final = frozenset({"RS256"})
_TYPE: Final = "x-ms-attestation-type"
_REGISTERS: Final = {
    "snp": {"measurement": ("x-ms-sevsnpvm-launchmeasurement", 48)},
    "sgx": {"mrenclave": ("x-ms-sgx-mrenclave", 32), "mrsigner": ("x-ms-sgx-mrsigner", 32)},
    "tdx": {
        "mrtd": ("tdx_mrtd", 48),
        **{f"rtmr{index}": (f"tdx_rtmr{index}", 48) for index in range(4)},
    },
}
# Not `x-ms-policy-hash`: the default policy of a region is the same for every machine in it.
MEASURED: Final = frozenset({"x-ms-sevsnpvm-launchmeasurement", "x-ms-sgx-mrenclave", "tdx_mrtd"})
UNPROVEN: Final = ("no signed token of Azure Attestation has been seen, only decoded claims of one SNP VM",)

_HARDWARE: Final = {"sgx": "sgx", "sevsnpvm": "snp", "tdxvm": "tdx"}
_REPORT_DATA: Final = {
    "snp": "x-ms-sevsnpvm-reportdata",
    "sgx": "x-ms-sgx-report-data",
    "tdx": "tdx_report_data",
}
_DEBUG: Final = {
    "snp": "x-ms-sevsnpvm-is-debuggable",
    "sgx": "x-ms-sgx-is-debuggable",
    "tdx": "tdx_td_attributes_debug",
}
_VM_DEBUG: Final = (
    "x-ms-azurevm-bootdebug-enabled",
    "x-ms-azurevm-kerneldebug-enabled",
    "x-ms-azurevm-hypervisordebug-enabled",
)


def recognises(claims: Mapping[str, Any]) -> bool:
    """Whether a payload is of this kind."""
    return _TYPE in claims and "x-ms-ver" in claims


def read(claims: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Said:
    """The claims in common terms."""
    _ = parts
    vm = claims.get(_TYPE) == "azurevm"
    node = (member(claims, "x-ms-isolation-tee", dict) or {}) if vm else claims
    hardware = _HARDWARE.get(member(node, _TYPE, str) or "", "tpm" if vm and not node else "unknown")
    measurements = {}
    for register, (name, length) in _REGISTERS.get(hardware, {}).items():
        value = hex_bytes(node, name, length)
        if value is not None:
            measurements[register] = value
    debug = flag(node, _DEBUG[hardware]) if hardware in _DEBUG else None
    if vm and any(flag(claims, name) for name in _VM_DEBUG):
        debug = True
    status = member(node, "attester_tcb_status", str)
    compliance = member(node, "x-ms-compliance-status", str)
    refused = vm and hardware in _DEBUG and compliance != "azure-compliant-cvm"
    return Said(
        tree=claims,
        hardware=(hardware,),
        debug=debug,
        nonce=_client_nonce(claims) if vm else hex_bytes(node, _REPORT_DATA.get(hardware, ""), 64),
        measurements=measurements,
        statuses=() if status is None else (status,),
        objections=(unacceptable("attributes", "Azure does not call the guest a compliant confidential VM"),)
        if refused
        else (),
    )


def _client_nonce(claims: Mapping[str, Any]) -> bytes | None:
    runtime = member(claims, "x-ms-runtime", dict) or {}
    payload = member(runtime, "client-payload", dict) or {}
    text = member(payload, "nonce", str)
    return None if text is None else base64_text.decode(text, what="nonce of the token", max_length=128)
