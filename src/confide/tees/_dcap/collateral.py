# SPDX-License-Identifier: Apache-2.0
"""Intel's collateral: TCB info and enclave identities with their signatures, taken apart strictly.

A document is one of three JSON texts: the bundle that quote verification libraries exchange (field names as below), or the
answer of Intel's service for TCB info or for an enclave identity as it came. Signatures are over the exact bytes of the
inner text. Source: Intel, "API for Provisioning Certification Service", version 4, TCB Info V3 and Enclave Identity V2.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from confide.crypto import x509
from confide.errors import MalformedError
from confide.tees._dcap.tcb import COMPONENTS, PlatformLevel, SvnLevel, TcbEvaluation
from confide.wire import strict_json
from confide.wire.fields import Fields

__all__ = ["Document", "EnclaveIdentity", "ModuleIdentity", "SignedText", "TcbInfo", "is_collateral", "read"]

MAX_DOCUMENT: Final = 256 * 1024
_MAX_LEVELS: Final = 256
_MAX_IDENTITIES: Final = 64
_MAX_ADVISORIES: Final = 256
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*", re.ASCII)
_ADVISORY = re.compile(r"[A-Z][A-Z0-9-]{1,63}", re.ASCII)
_STATUS = re.compile(r"[A-Za-z]{1,64}", re.ASCII)
_CHAINS: Final = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")
# The service's answers are one object of two members; between them stand the exact bytes that are signed.
_ANSWER = re.compile(
    rb'\s*\{\s*"(tcbInfo|enclaveIdentity)"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SignedText:
    """The exact bytes that are signed, the signature r || s (64 bytes), and the certificates that came with them."""

    text: bytes
    signature: bytes
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """What a TDX module of one version must be: its signer (48 bytes), its attributes under a mask (8), its levels."""

    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """TCB info of one kind of platform. ``kind`` is ``SGX`` or ``TDX``; levels are sorted, highest first.

    ``module`` is for TDX modules of version 0, ``modules`` has the others by version; None and empty for SGX.
    """

    signed: SignedText
    kind: str
    version: int
    issued: datetime
    next_update: datetime
    fmspc: bytes
    pceid: bytes
    evaluation_number: int
    levels: tuple[PlatformLevel, ...]
    module: ModuleIdentity | None
    modules: dict[int, ModuleIdentity]


@dataclass(frozen=True, slots=True)
class EnclaveIdentity:
    """What a quoting enclave must be. ``kind`` is ``QE`` for SGX and ``TD_QE`` for TDX; levels are sorted, highest first."""

    signed: SignedText
    kind: str
    issued: datetime
    next_update: datetime
    evaluation_number: int
    miscselect: int
    miscselect_mask: int
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One document, read and not verified: what of TCB info, identity, certificates and CRLs (DER) is in it."""

    tcb_info: TcbInfo | None
    identity: EnclaveIdentity | None
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[bytes, ...]


def is_collateral(data: bytes) -> bool:
    """Whether a file is one of the three JSON texts, for telling formats apart; little is checked."""
    if data.lstrip()[:1] != b"{" or len(data) > MAX_DOCUMENT:
        return False
    return _ANSWER.fullmatch(data) is not None or (b'"tcb_info_signature"' in data and b'"pck_crl"' in data)


@functools.lru_cache(maxsize=64)
def read(data: bytes) -> Document:
    """The document in ``data``, at most 256 KiB; ``malformed`` for anything that is not to the letter one of the three."""
    if len(data) > MAX_DOCUMENT:
        raise MalformedError("limit_exceeded", f"Intel's collateral is longer than {MAX_DOCUMENT} bytes")
    answer = _ANSWER.fullmatch(data)
    if answer is None:
        return _bundle(data)
    signed = SignedText(answer.group(2), bytes.fromhex(answer.group(3).decode("ascii")), ())
    if answer.group(1) == b"tcbInfo":
        return Document(_tcb_info(signed), None, (), ())
    return Document(None, _identity(signed), (), ())


def _bundle(data: bytes) -> Document:
    what = "Intel's collateral"
    document = strict_json.decode(data, what=what, max_size=MAX_DOCUMENT)
    for key in (*_CHAINS, "pck_certificate_chain"):
        _issuer_chain(document, key)
    fields = Fields(document, what)
    pck_ca = _chain(fields.text("pck_crl_issuer_chain", 64 * 1024, multiline=True))
    pck = fields.text("pck_certificate_chain", 64 * 1024, multiline=True, default=None)
    signed = [
        SignedText(
            fields.text(name, MAX_DOCUMENT, multiline=True).encode("utf-8"),
            _hex(fields, f"{name}_signature", 64),
            _chain(fields.text(f"{name}_issuer_chain", 64 * 1024, multiline=True)),
        )
        for name in ("tcb_info", "qe_identity")
    ]
    crls = tuple(_crl(fields.text(name, MAX_DOCUMENT, multiline=True)) for name in ("root_ca_crl", "pck_crl"))
    fields.end()
    certificates = pck_ca + (() if pck is None else _chain(pck))
    return Document(_tcb_info(signed[0]), _identity(signed[1]), certificates, crls)


def _issuer_chain(document: Any, key: str) -> None:
    # Texts out of C programs end in a NUL, and some tools write CR LF; the certificates are signed whatever stands between.
    value = document.get(key) if isinstance(document, dict) else None
    if isinstance(value, str):
        document[key] = value.removesuffix("\x00").replace("\r\n", "\n")


def _chain(text: str) -> tuple[x509.Certificate, ...]:
    return x509.parse_pem(text.encode("ascii", "replace"))


def _crl(text: str) -> bytes:
    """A CRL as hexadecimal text of its DER, or as PEM."""
    if text.startswith("-----BEGIN"):
        return x509.Crl.from_bytes(text.encode("ascii", "replace")).der
    if not text or not _HEX.fullmatch(text):
        raise MalformedError("non_canonical", "a CRL in Intel's collateral is neither hexadecimal nor PEM")
    return bytes.fromhex(text)


def _hex(fields: Fields, key: str, length: int) -> bytes:
    """Hexadecimal text of exactly ``length`` bytes; Intel writes upper case and, in places, lower."""
    text = fields.text(key, 512)
    if len(text) != 2 * length or not _HEX.fullmatch(text):
        raise MalformedError("length_mismatch", f"`{key}` in Intel's collateral is not {length} bytes of hex")
    return bytes.fromhex(text)


def _time(fields: Fields, key: str) -> datetime:
    text = fields.text(key, 32)
    if _TIME.fullmatch(text):
        try:
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass  # Raised below.
    raise MalformedError("non_canonical", f"`{key}` in Intel's collateral is not a time in UTC")


def _validity(fields: Fields) -> tuple[datetime, datetime]:
    issued, next_update = _time(fields, "issueDate"), _time(fields, "nextUpdate")
    if next_update <= issued:
        raise MalformedError("non_canonical", "Intel's collateral ends before it begins")
    return issued, next_update


def _object(signed: SignedText, what: str) -> Fields:
    # Members that are not asked for are Intel's to add: the text is signed, and nothing unknown in it is believed.
    return Fields(strict_json.decode(signed.text, what=what, max_size=MAX_DOCUMENT), what)


def _tcb_info(signed: SignedText) -> TcbInfo:
    what = "TCB info"
    fields = _object(signed, what)
    version = fields.integer("version", 0, 1 << 32)
    if version not in {2, 3}:
        raise MalformedError("unsupported_version", "the TCB info is of another version than 2 or 3")
    # Version 2 is older than TDX and does not say what it is for.
    kind = fields.text("id", 16) if version == 3 else "SGX"
    if kind not in {"SGX", "TDX"}:
        raise MalformedError("unknown_format", "the TCB info is neither for SGX nor for TDX")
    if fields.integer("tcbType", 0, 255) != 0:
        raise MalformedError("unsupported_version", "the TCB info composes its TCB in an unknown way")
    issued, next_update = _validity(fields)
    tdx = kind == "TDX"
    raw = fields.list_("tcbLevels", _MAX_LEVELS)
    levels = [_platform_level(item, version, tdx=tdx) for item in raw]
    module = _module(fields.mapping("tdxModule"), with_levels=False)[1] if tdx else None
    identities = fields.list_("tdxModuleIdentities", _MAX_IDENTITIES, default=[]) if tdx else []
    modules: dict[int, ModuleIdentity] = {}
    for item in identities:
        number, identity = _module(item, with_levels=True)
        if number in modules:
            raise MalformedError("non_canonical", "the TCB info has two identities of one TDX module")
        modules[number] = identity
    return TcbInfo(
        signed=signed,
        kind=kind,
        version=version,
        issued=issued,
        next_update=next_update,
        fmspc=_hex(fields, "fmspc", 6),
        pceid=_hex(fields, "pceId", 2),
        evaluation_number=fields.integer("tcbEvaluationDataNumber", 0, 1 << 32),
        levels=tuple(sorted(levels, key=lambda level: level.order, reverse=True)),
        module=module,
        modules=modules,
    )


def _evaluation(fields: Fields) -> TcbEvaluation:
    """Status, date and advisories of a level; a status that is no word of Intel's is kept, to be refused where it counts."""
    status = fields.text("tcbStatus", 64)
    advisories = fields.list_("advisoryIDs", _MAX_ADVISORIES, default=[])
    if not _STATUS.fullmatch(status) or not all(
        isinstance(one, str) and _ADVISORY.fullmatch(one) for one in advisories
    ):
        raise MalformedError("non_canonical", "a status or advisory in Intel's collateral is not one word")
    return TcbEvaluation(status, _time(fields, "tcbDate"), tuple(advisories))


def _platform_level(item: Any, version: int, *, tdx: bool) -> PlatformLevel:
    fields = Fields(item, "TCB level")
    tcb = Fields(fields.mapping("tcb"), "TCB level")
    if version == 2:
        sgx = tuple(tcb.integer(f"sgxtcbcomp{n:02}svn", 0, 255) for n in range(1, COMPONENTS + 1))
    else:
        sgx = _components(tcb.list_("sgxtcbcomponents"))
    return PlatformLevel(
        sgx_components=sgx,
        pcesvn=tcb.integer("pcesvn", 0, 0xFFFF),
        tdx_components=_components(tcb.list_("tdxtcbcomponents")) if tdx else (),
        evaluation=_evaluation(fields),
    )


def _components(items: list[Any]) -> tuple[int, ...]:
    # The number of components is fixed: a shorter list would leave the rest of a platform's TCB unjudged.
    if len(items) != COMPONENTS:
        raise MalformedError("length_mismatch", f"a TCB level has other than {COMPONENTS} components")
    return tuple(Fields(item, "TCB component").integer("svn", 0, 255) for item in items)


def _svn_levels(items: list[Any]) -> tuple[SvnLevel, ...]:
    levels = []
    for item in items:
        fields = Fields(item, "TCB level")
        isvsvn = Fields(fields.mapping("tcb"), "TCB level").integer("isvsvn", 0, 0xFFFF)
        levels.append(SvnLevel(isvsvn, _evaluation(fields)))
    return tuple(sorted(levels, key=lambda level: level.isvsvn, reverse=True))


def _module(item: Any, *, with_levels: bool) -> tuple[int, ModuleIdentity]:
    """Version and identity of a TDX module; ``id`` is ``TDX_`` and the version in two hexadecimal digits."""
    fields = Fields(item, "TDX module identity")
    number = 0
    if with_levels:
        name = fields.text("id", 16)
        if not re.fullmatch(r"TDX_[0-9A-Fa-f]{2}", name, re.ASCII):
            raise MalformedError("unknown_format", "the TCB info has a TDX module of an unknown kind")
        number = int(name[4:], 16)
    return number, ModuleIdentity(
        mrsigner=_hex(fields, "mrsigner", 48),
        attributes=_hex(fields, "attributes", 8),
        attributes_mask=_hex(fields, "attributesMask", 8),
        levels=_svn_levels(fields.list_("tcbLevels", _MAX_LEVELS)) if with_levels else (),
    )


def _identity(signed: SignedText) -> EnclaveIdentity:
    fields = _object(signed, "enclave identity")
    if fields.integer("version", 0, 1 << 32) != 2:
        raise MalformedError("unsupported_version", "the enclave identity is of another version than 2")
    issued, next_update = _validity(fields)
    return EnclaveIdentity(
        signed=signed,
        kind=fields.text("id", 16),
        issued=issued,
        next_update=next_update,
        evaluation_number=fields.integer("tcbEvaluationDataNumber", 0, 1 << 32),
        # As text these are numbers in little-endian bytes, as they stand in a report.
        miscselect=int.from_bytes(_hex(fields, "miscselect", 4), "little"),
        miscselect_mask=int.from_bytes(_hex(fields, "miscselectMask", 4), "little"),
        attributes=_hex(fields, "attributes", 16),
        attributes_mask=_hex(fields, "attributesMask", 16),
        mrsigner=_hex(fields, "mrsigner", 32),
        isvprodid=fields.integer("isvprodid", 0, 0xFFFF),
        levels=_svn_levels(fields.list_("tcbLevels", _MAX_LEVELS)),
    )
