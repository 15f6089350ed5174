# SPDX-License-Identifier: Apache-2.0
"""Is a Nitro enclave the one that a policy wants? The table ``[reference.nitro]``, and claims against it.

[reference.nitro]
pcr0 = ["<96 hex digits>", ...]            # the whole image; mandatory, or "ANY", spelled out
pcr1 = ["<96>"]    pcr2 = ["<96>"]         # kernel and boot; application. Left out they are wildcards, which the result names
pcr3 = ["<96>"]                            # the IAM role of the parent instance; all zeros: it has none
pcr4 = ["<96>"]                            # the id of the parent instance
pcr8 = ["<96>"]                            # the certificate that signed the image; all zeros: the image is not signed
pcr16 = ["<96>"]                           # and every other one up to pcr31, as lists or "ANY"
time = "now"                               # the default: certificates at the time of verification (they live three hours)
time = "document"                          # for archives: at the document's own time; the result says so
nonce = ["<hex>"]                          # any of; of 1 to 1024 bytes each
public_key = ["<hex>"]    user_data = ["<hex>"]

An enclave in debug mode (one of PCR 0, 1 and 2 is all zeros) is refused whatever is pinned, unless the policy says
``allow_debug = true``. ``module_id`` and the PCRs 3 and 4 name a place, not a program: nothing takes them for an identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confide.attestation.policy import digests
from confide.attestation.result import Vector, unacceptable
from confide.errors import AttestationError, ConfigurationError, MalformedError, NotAcceptable
from confide.tees.nitro import endorse, wire
from confide.tees.nitro.authenticate import NitroDetails
from confide.wire import hexadecimal
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.attestation.anchors import TrustAnchor
    from confide.attestation.claims import Claims
    from confide.attestation.policy import AppraisalPolicy
    from confide.errors import Reason

__all__ = ["NitroReference", "appraise", "describe", "parse_reference", "trustworthiness"]

_REGISTERS: Final = tuple(f"pcr{index}" for index in range(32))
_LAUNCH: Final = ("pcr0", "pcr1", "pcr2")
_FIELDS: Final = ("nonce", "public_key", "user_data")
_MAX_VALUES: Final = 1024
_ABOUT: Final = {
    "pcr0": ("measurement", "the enclave's image is not one that the policy names"),
    "pcr1": ("measurement", "the enclave's kernel and boot ramdisk are not ones that the policy names"),
    "pcr2": ("measurement", "the enclave's application is not one that the policy names"),
    "pcr3": ("identity", "the parent instance's IAM role is not one that the policy names"),
    "pcr4": ("identity", "the parent instance is not one that the policy names"),
    "pcr8": ("signer", "the certificate that signed the image is not one that the policy names"),
}


@dataclass(frozen=True, slots=True)
class NitroReference:
    """The parsed table. ``pcrs`` maps registers to their values, None being the spelled ``ANY``; ``fields`` the expectations of
    ``nonce``, ``public_key`` and ``user_data``. What is not in them is not asked for.
    """

    pcrs: Mapping[str, tuple[bytes, ...] | None]
    fields: Mapping[str, tuple[bytes, ...]]
    archival: bool

    @property
    def measured(self) -> bool:
        """Whether PCR 0, which covers the whole image, is pinned."""
        return self.pcrs.get("pcr0") is not None

    @property
    def wildcards(self) -> tuple[str, ...]:
        """Registers that are spelled ``ANY``, and those of the launch that are left out."""
        return tuple(
            name
            for name in _REGISTERS
            if (name in self.pcrs or name in _LAUNCH) and self.pcrs.get(name) is None
        )

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        """AWS's roots as archival ones where the table says ``time = "document"``."""
        return endorse.archive_anchors() if self.archival else ()


def parse_reference(table: Mapping[str, object]) -> NitroReference:
    """The table ``[reference.nitro]``. Raises ``configuration.invalid`` for what is written wrongly, and
    ``not_acceptable.empty_policy`` where ``pcr0`` is absent or a list is empty.
    """
    fields = Fields(table, "[reference.nitro]", ConfigurationError)
    pcrs: dict[str, tuple[bytes, ...] | None] = {}
    for name in _REGISTERS:
        if table.get(name) == "ANY":
            fields.text(name)
            pcrs[name] = None
        elif (values := digests(fields, name, wire.PCR_BYTES, default=None)) is not None:
            pcrs[name] = values
    if "pcr0" not in pcrs:
        raise NotAcceptable(
            "empty_policy",
            "[reference.nitro] pins no `pcr0`",
            hint='add `pcr0 = ["<96 hexadecimal digits>"]`, or spell `pcr0 = "ANY"` if you mean it',
        )
    for name in _LAUNCH:
        if not all(any(value) for value in pcrs.get(name) or ()):
            raise ConfigurationError(
                "invalid",
                f"`{name}` has the value of all zeros, which every enclave in debug mode shows",
                hint="measure the image, and run it without debug mode",
            )
    expected = {name: values for name in _FIELDS if (values := _values(fields, name)) is not None}
    time = fields.text("time", 16, default="now")
    if time not in {"now", "document"}:
        raise ConfigurationError(
            "invalid", "`time` is neither now nor document", hint='write time = "now" or time = "document"'
        )
    fields.end()
    return NitroReference(MappingProxyType(pcrs), MappingProxyType(expected), time == "document")


def _values(fields: Fields, key: str) -> tuple[bytes, ...] | None:
    """A non-empty list of hexadecimal values of 1 to 1024 bytes."""
    values = fields.list_(key, _MAX_VALUES, default=None)
    if values is None:
        return None
    if not values:
        raise NotAcceptable(
            "empty_policy",
            f"`{key}` is an empty list, which admits nothing",
            hint="name a value, or remove it",
        )
    found = []
    for value in values:
        try:
            decoded = hexadecimal.decode(value, what=key) if isinstance(value, str) else b""
        except MalformedError:
            decoded = b""
        if not 1 <= len(decoded) <= wire.MAX_FIELD:
            raise ConfigurationError(
                "invalid",
                f"`{key}` has a value that is not 1 to {wire.MAX_FIELD} bytes of hexadecimal",
                hint="lower case, two digits a byte, in quotes",
            )
        found.append(decoded)
    return tuple(found)


def appraise(claims: Claims, reference: object, policy: AppraisalPolicy) -> tuple[Reason, ...]:
    """Every way in which authenticated claims differ from what the policy wants; empty if there is none."""
    details, wanted = _details(claims), _reference(reference)
    found: list[Reason] = []
    if _is_debug(claims) and not policy.allow_debug:
        found.append(
            unacceptable(
                "debug",
                "the enclave runs in debug mode: its console is open to the parent instance, and its image is not measured",
                hint="run it without --debug-mode and --attach-console; `allow_debug = true` accepts it for development",
            )
        )
    for name, values in wanted.pcrs.items():
        if values is not None and claims.measurements.get(name) not in values:
            leaf, message = _ABOUT.get(
                name, ("measurement", f"`{name}` is absent, or not one that the policy names")
            )
            found.append(
                unacceptable(
                    leaf, message, hint=f"compare `{name}` with what nitro-cli printed for the image"
                )
            )
    actual = {"nonce": details.nonce, "public_key": details.public_key, "user_data": details.user_data}
    for name, values in wanted.fields.items():
        if not actual[name]:
            found.append(
                unacceptable(
                    "nonce_missing",
                    f"the document has no `{name}`, and the policy asks for one",
                    stage="binding",
                )
            )
        elif actual[name] not in values:
            found.append(
                unacceptable(
                    "nonce_mismatch" if name == "nonce" else "channel",
                    f"`{name}` of the document is not one that the policy names",
                    stage="binding",
                )
            )
    return tuple(found)


def _is_debug(claims: Claims) -> bool:
    # A register of the launch is an extended SHA-384 and never zero: also one of them alone says that nothing was measured.
    return not all(any(claims.measurements[name]) for name in _LAUNCH)


def trustworthiness(claims: Claims, reference: object) -> Vector:
    """EAR's claims for an accepted enclave."""
    wanted = _reference(reference)
    debug = _is_debug(claims)
    return Vector(
        configuration=96 if debug else 2,
        executables=3 if wanted.measured and not debug else 33,
        hardware=2,
        runtime_opaque=96 if debug else 2,
    )


def describe(claims: Claims) -> Mapping[str, object]:
    """The claims as JSON values, by AWS's names."""
    details = _details(claims)
    return {
        "module_id": details.module_id,
        "timestamp": details.timestamp.isoformat(),
        "judged_at_document_time": details.archival,
        "debug": _is_debug(claims),
        "digest": details.digest,
        **{name: value.hex() for name, value in claims.measurements.items()},
        "user_data": _hex(details.user_data),
        "nonce": _hex(details.nonce),
        "public_key": _hex(details.public_key),
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _details(claims: Claims) -> NitroDetails:
    if not isinstance(claims.details, NitroDetails):
        raise AttestationError("internal", "claims of another TEE", stage="internal")
    return claims.details


def _reference(reference: object) -> NitroReference:
    if not isinstance(reference, NitroReference):
        raise AttestationError("internal", "reference values of another TEE", stage="internal")
    return reference
