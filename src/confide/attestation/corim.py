# SPDX-License-Identifier: Apache-2.0
"""Reference values from and to CoRIM (draft-ietf-rats-corim): CBOR, unsigned (tag 501) or signed (COSE_Sign1, tag 18).

Of a CoRIM the reference triples are read that name registers of an SNP guest (draft-deeglaze-amd-sev-snp-corim-profile), an
SGX enclave or a TD (draft-cds-rats-intel-corim-profile). Environments of other kinds, endorsements and CoSWIDs are passed
over, since passing them over admits nothing. A triple that asks for more than can be kept as reference values (an instance,
an SVN, a mask, who may authorise it) is refused as a whole: the part that remained would admit more than was written.

Intel's draft gives an OID to SGX enclaves and to the TDX module, and none to a TD nor a place for RTMRs. Written here are
vendor "Intel Corporation", model "TDX TD", MRTD as `tee.mrtee` and RTMRs as `integrity-registers`; that part is confide's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from confide.attestation.reference import ReferenceValues
from confide.crypto import cose, signing
from confide.errors import ConfigurationError, MalformedError, NotAcceptable, NotGenuine
from confide.wire import cbor
from confide.wire.cbor import Tagged
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["MEDIA_TYPE", "read", "sign", "write"]

MEDIA_TYPE: Final = "application/rim+cbor"
MAX_FILE: Final = 256 * 1024
MAX_TAGS: Final = 64
MAX_TRIPLES: Final = 1024
MAX_VALUES: Final = 1024

_CORIM, _SIGNED, _COMID, _BYTES, _OID, _URI, _MEMBER_OF = 501, 18, 506, 560, 111, 32, 60020
# What may stand in a CoRIM at all, so that the parts that are passed over can be read past.
_TAGS: Final = frozenset({1, 32, 37, 111, 501, 505, 506, 508, *range(550, 565), 60010, 60020, 60021})
_SHA256, _SHA384 = 1, 7  # Of IANA's registry of named information hash algorithms.

_SNP_PROFILE: Final = Tagged(_URI, "tag:amd.com,2025:snp-corim-profile")
_INTEL_PROFILE: Final = Tagged(_OID, bytes.fromhex("6086480186f84d011001"))  # 2.16.840.1.113741.1.16.1
# 1.3.6.1.4.1.3704.3.1, and .2: keys by chip, and by cloud. The draft writes tag and length into the OID, RFC 9090 does not.
_SNP_CLASS: Final = bytes.fromhex("06092b060104019c780301")
_SNP_CLASSES: Final = frozenset(
    {
        _SNP_CLASS,
        bytes.fromhex("06092b060104019c780302"),
        bytes.fromhex("2b060104019c780301"),
        bytes.fromhex("2b060104019c780302"),
    }
)
_SGX_CLASS: Final = bytes.fromhex("6086480186f84d0102030501")  # 2.16.840.1.113741.1.2.3.5.1
_TD_CLASS: Final = {1: "Intel Corporation", 2: "TDX TD"}

_DIGESTS, _RAW, _REGISTERS, _MRTEE, _MRSIGNER = 2, 4, 14, -83, -84
# mkey -> register, kind of value, algorithm, bytes. HOST_DATA is 32 bytes under the number of SHA-384, as the draft has it.
_SNP: Final[Mapping[int, tuple[str, int, int, int]]] = {
    641: ("measurement", _DIGESTS, _SHA384, 48),
    642: ("host_data", _DIGESTS, _SHA384, 32),
    643: ("id_key_digest", _DIGESTS, _SHA384, 48),
    644: ("author_key_digest", _DIGESTS, _SHA384, 48),
    3: ("family_id", _RAW, 0, 16),
    4: ("image_id", _RAW, 0, 16),
}
_INTEL: Final[Mapping[str, Mapping[int, tuple[str, int, int]]]] = {
    "sgx": {_MRTEE: ("mrenclave", _SHA256, 32), _MRSIGNER: ("mrsigner", _SHA256, 32)},
    "tdx": {_MRTEE: ("mrtd", _SHA384, 48)},
}
_RTMRS: Final = range(4)
_RTMR_BYTES: Final = 48


def read(
    data: bytes, *, at: datetime | None = None, keys: tuple[bytes, ...] = ()
) -> tuple[ReferenceValues, ...]:
    """The reference values of a CoRIM of at most 256 KiB, one entry for each CoMID and TEE in it.

    A signed one is read only under one of ``keys`` (DER SubjectPublicKeyInfo), with ``keys`` only a signed one, and one that
    states a validity only ``at`` a time within it. Raises ``malformed`` for what is not a CoRIM or asks for more than registers, ``not_genuine`` for a
    signature, ``not_acceptable.empty_policy`` where there is no reference value for a TEE known here,
    ``not_acceptable.stale`` or ``from_future`` outside the validity.
    """
    if data[:1] == b"\xd2":
        data = _open_signed(data, keys, at)
    elif keys:
        raise unsigned()
    value = _decode(data, "CoRIM")
    if not isinstance(value, Tagged) or value.tag != _CORIM:
        raise MalformedError("unknown_format", "the file is not a CoRIM: it has not its tag")
    fields = Fields(value.value, "CoRIM")
    name = _identifier(value.value.get(0), "CoRIM")
    tags = fields.list_(1, MAX_TAGS)
    _check_validity(fields.mapping(4, default=None), at)
    _refuse_unknown(value.value, {0, 1, 2, 3, 4, 5}, "CoRIM")
    comids: list[Any] = []
    for tag in tags:
        if not isinstance(tag, Tagged) or not isinstance(tag.value, bytes):
            raise MalformedError("non_canonical", "a tag in the CoRIM is not a tagged byte string")
        if tag.tag == _COMID:
            comids.append(_decode(tag.value, "CoMID"))
    found = [values for comid in comids for values in _read_comid(comid, name)]
    _check_replaced(comids)
    if not found:
        raise NotAcceptable("empty_policy", "the CoRIM has no reference values for a TEE that is known here")
    return tuple(found)


def unsigned() -> NotGenuine:
    """The refusal of a file without signature where a key was given: whoever changes a file can also strip it."""
    return NotGenuine(
        "bad_signature",
        "a key was given to check reference values with, and the file is not signed",
        hint="have it signed as CoRIM, or give no key and look after the file as you do after the policy",
    )


def _decode(data: bytes, what: str) -> Any:
    return cbor.decode(data, what=what, max_size=MAX_FILE, deterministic=False, tags=_TAGS)


def _refuse_unknown(mapping: Mapping[Any, Any], known: set[int], what: str) -> None:
    if set(mapping) - known:
        raise MalformedError("unknown_format", f"the {what} has a part that is not known here")


def _identifier(value: object, what: str) -> str:
    if isinstance(value, Tagged) and value.tag == 37:
        value = value.value
    if isinstance(value, bytes) and len(value) == 16:
        return value.hex()
    if isinstance(value, str) and 1 <= len(value) <= 256 and value.isprintable():
        return value
    raise MalformedError("non_canonical", f"the {what} has no id of text or UUID")


def _check_validity(validity: Mapping[Any, Any] | None, at: datetime | None) -> None:
    if validity is None:
        return
    _refuse_unknown(validity, {0, 1}, "validity of the CoRIM")
    first, last = (_time(validity[key]) if key in validity else None for key in (0, 1))
    if last is None:
        raise MalformedError("non_canonical", "the validity of the CoRIM has no end")
    if at is None or at.tzinfo is None:
        raise ConfigurationError("time", "the CoRIM states how long it is valid, and no time was given")
    if first is not None and at.timestamp() < first:
        raise NotAcceptable("from_future", "the CoRIM is not valid yet")
    if at.timestamp() > last:
        raise NotAcceptable(
            "stale", "the CoRIM is no longer valid", hint="ask whoever wrote it for a new one"
        )


def _time(value: object) -> int:
    seconds = value.value if isinstance(value, Tagged) and value.tag == 1 else None
    if type(seconds) is not int:
        raise MalformedError("non_canonical", "a time in the CoRIM is not a whole number of seconds")
    return seconds


def _check_replaced(comids: list[Any]) -> None:
    """Refuse a file in which one CoMID replaces another, or another version of the same: only the newer one counts."""
    names = [_identifier(comid[1].get(0), "CoMID") for comid in comids]
    for own, comid in zip(names, comids, strict=True):
        for link in Fields(comid, "CoMID").list_(3, MAX_TAGS, default=[]):
            fields = Fields(link, "link of the CoMID")
            replaced = _identifier(link.get(0), "link of the CoMID")
            if fields.integer(1, 0, 1) == 1 and replaced != own and replaced in names:
                raise _replaced()
    if len(set(names)) != len(names):
        raise _replaced()


def _replaced() -> MalformedError:
    return MalformedError(
        "unknown_format",
        "the CoRIM has a CoMID that another one of it replaces",
        hint="remove the older one: its values would count as well",
    )


def _read_comid(value: object, corim: str) -> Iterator[ReferenceValues]:
    fields = Fields(value if isinstance(value, dict) else {}, "CoMID")
    identity = fields.mapping(1)
    triples = fields.mapping(4)
    _refuse_unknown(value if isinstance(value, dict) else {}, {0, 1, 2, 3, 4}, "CoMID")
    origin = f"CoRIM {corim}, CoMID {_identifier(identity.get(0), 'CoMID')}"
    records = Fields(triples, "triples of the CoMID").list_(0, MAX_TRIPLES, default=[])
    found: dict[str, dict[str, dict[bytes, None]]] = {}
    for record in records:
        match record:
            case [dict() as environment, list() as measurements] if measurements:
                tee = _tee(environment)
            case _:
                raise MalformedError(
                    "non_canonical", "a reference triple is not environment and measurements"
                )
        if tee is None:
            continue
        for measurement in measurements:
            for register, digest in _read_measurement(tee, measurement):
                values = found.setdefault(tee, {}).setdefault(register, {})
                values[digest] = None
                if len(values) > MAX_VALUES:
                    raise MalformedError("limit_exceeded", f"a register has more than {MAX_VALUES} values")
    for tee, registers in found.items():
        yield ReferenceValues(tee, {name: tuple(values) for name, values in registers.items()}, origin)


def _tee(environment: Mapping[Any, Any]) -> str | None:
    """Which TEE's registers an environment has; None for one of another kind."""
    about = environment.get(0)
    if not isinstance(about, dict):
        return None
    match about.get(0):
        case Tagged(tag=111, value=bytes() as oid) if oid in _SNP_CLASSES:
            tee = "snp"
        case Tagged(tag=111, value=bytes() as oid) if oid == _SGX_CLASS:
            tee = "sgx"
        case None if about.get(1) == _TD_CLASS[1] and about.get(2) == _TD_CLASS[2]:
            tee = "tdx"
        case _:
            return None
    own = set(_TD_CLASS) if tee == "tdx" else {0} if tee == "snp" else {0, 1, 2}
    if set(environment) != {0} or set(about) - own:
        raise MalformedError(
            "unknown_format",
            "a reference triple is about one instance or group of machines, which reference values cannot say",
        )
    return tee


def _read_measurement(tee: str, value: object) -> Iterator[tuple[str, bytes]]:
    if not isinstance(value, dict) or set(value) - {0, 1} or not isinstance(value.get(1), dict):
        raise MalformedError(
            "unknown_format", "a reference triple says more of a measurement than its key and values"
        )
    key, values = value.get(0), value[1]
    if not values:
        raise MalformedError("non_canonical", "a measurement of the CoMID has no value")
    if tee == "snp":
        yield from _read_snp(key, values)
        return
    for code, found in values.items():
        if key is not None:
            raise _more_than_registers()
        if code == _REGISTERS and tee == "tdx":
            yield from _read_rtmrs(found)
        elif code in _INTEL[tee]:
            register, algorithm, length = _INTEL[tee][code]
            for digest in _members(found, algorithm, length):
                yield register, digest
        else:
            raise _more_than_registers()


def _more_than_registers() -> MalformedError:
    return MalformedError(
        "unknown_format",
        "a reference triple asks for more than registers, which reference values cannot say",
        hint="pin what it asks for in the policy, and the registers in a file of their own",
    )


def _read_snp(key: object, values: Mapping[Any, Any]) -> Iterator[tuple[str, bytes]]:
    if type(key) is not int or key not in _SNP or set(values) != {_SNP[key][1]}:
        raise _more_than_registers()
    register, code, algorithm, length = _SNP[key]
    if code == _DIGESTS:
        yield register, _only(_digests(values[code]), algorithm, length)
        return
    raw = values[code]
    if not isinstance(raw, Tagged) or raw.tag != _BYTES or not isinstance(raw.value, bytes):
        raise _more_than_registers()
    if len(raw.value) != length:
        raise MalformedError("length_mismatch", "a raw value in the CoMID has another length than its field")
    yield register, raw.value


def _read_rtmrs(value: object) -> Iterator[tuple[str, bytes]]:
    if not isinstance(value, dict) or not value:
        raise MalformedError("non_canonical", "the integrity registers of the CoMID are not a filled map")
    for index, digests in value.items():
        if type(index) is not int or index not in _RTMRS:
            raise _more_than_registers()
        yield f"rtmr{index}", _only(_digests(digests), _SHA384, _RTMR_BYTES)


def _members(value: object, algorithm: int, length: int) -> list[bytes]:
    """One digest, a list of one, or Intel's expression "is a member of" with several (operator 6)."""
    if isinstance(value, Tagged):
        match value:
            case Tagged(tag=60020, value=[6, list() as members]) if members:
                return [_only([one], algorithm, length) for one in members]
        raise _more_than_registers()
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return [_only([value], algorithm, length)]
    return [_only(_digests(value), algorithm, length)]


def _digests(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise MalformedError("non_canonical", "the digests of a measurement are not a filled list")
    return value


def _only(digests: list[Any], algorithm: int, length: int) -> bytes:
    """The one digest there is: several at once would all have to match, which one register cannot."""
    match digests:
        case [[int() as named, bytes() as digest]] if type(named) is int and named == algorithm:
            if len(digest) != length:
                raise MalformedError(
                    "length_mismatch", "a digest in the CoMID has another length than its register"
                )
            return digest
    raise _more_than_registers()


def write(values: Iterable[ReferenceValues], *, identifier: str) -> bytes:
    """An unsigned CoRIM with one CoMID for each of ``values``, all of SNP, or all of TDX and SGX: a CoRIM has one profile.

    Raises ``configuration.invalid`` for other TEEs, and for registers that the profile has no place for.
    """
    given = tuple(values)
    tees = {one.tee for one in given}
    if not given or not (tees == {"snp"} or tees <= {"tdx", "sgx"}):
        raise ConfigurationError("invalid", "a CoRIM is written for SNP, or for TDX and SGX")
    tags = [
        Tagged(_COMID, cbor.encode({1: {0: f"{identifier}/{index}"}, 4: {0: _records(one)}}))
        for index, one in enumerate(given)
    ]
    profile = _SNP_PROFILE if tees == {"snp"} else _INTEL_PROFILE
    data = cbor.encode(Tagged(_CORIM, {0: identifier, 1: tags, 3: profile}))
    read(data)
    return data


def _records(values: ReferenceValues) -> list[Any]:
    """One triple for each value of each register: reference values of CoRIM are matched one by one."""
    environment: dict[int, Any] = {
        "snp": {0: Tagged(_OID, _SNP_CLASS)},
        "sgx": {0: Tagged(_OID, _SGX_CLASS)},
    }.get(values.tee, dict(_TD_CLASS))
    return [
        [{0: environment}, [_measurement(values.tee, register, value)]]
        for register in sorted(values.measurements)
        for value in values.measurements[register]
    ]


def _measurement(tee: str, register: str, value: bytes) -> dict[int, Any]:
    if tee == "snp":
        for key, (name, code, algorithm, length) in _SNP.items():
            if name == register and len(value) == length:
                listed = [[algorithm, value]] if code == _DIGESTS else Tagged(_BYTES, value)
                return {0: key, 1: {code: listed}}
    elif tee == "tdx" and register in {f"rtmr{index}" for index in _RTMRS} and len(value) == _RTMR_BYTES:
        return {1: {_REGISTERS: {int(register[-1]): [[_SHA384, value]]}}}
    else:
        for code, (name, algorithm, length) in _INTEL[tee].items():
            if name == register and len(value) == length:
                return {1: {code: [algorithm, value]}}
    raise ConfigurationError(
        "invalid", "the CoRIM profile has no place for a register, or a value is not of its length"
    )


_META, _CWT_CLAIMS, _CONTENT_TYPE = 8, 15, 3
_ALGORITHMS: Final = frozenset({cose.ED25519, cose.ES256, cose.ES384, cose.PS256, cose.PS384})


def sign(corim: bytes, key: signing.SigningKey, *, signer: str) -> bytes:
    """An unsigned CoRIM as COSE_Sign1 with tag 18, signed with Ed25519; ``signer`` is the name in its metadata."""
    read(corim)
    meta = cbor.encode({0: {0: signer}})
    signed = cose.sign1(key, corim, content_type=MEDIA_TYPE, parameters={_META: meta})
    return b"\xd2" + signed


def _open_signed(data: bytes, keys: tuple[bytes, ...], at: datetime | None) -> bytes:
    """The payload of a signed CoRIM, once one of ``keys`` has been seen to sign it."""
    parts = cose.Sign1.decode(
        data, algorithms=_ALGORITHMS, what="signed CoRIM", max_size=MAX_FILE, vendor=True, allow_tag=True
    )
    if parts.protected.get(_CONTENT_TYPE) != MEDIA_TYPE or not {_META, _CWT_CLAIMS} & set(parts.protected):
        raise MalformedError("unknown_format", "the signed file does not say that it is a CoRIM and whose")
    if not keys:
        raise ConfigurationError(
            "invalid",
            "the CoRIM is signed, and no key was given to check it with",
            hint="give its signer's key",
        )
    refusal: NotGenuine | None = None
    for key in keys:
        try:
            # A SubjectPublicKeyInfo of Ed25519 ends with the 32 bytes of the key (RFC 8410, section 4).
            ed25519 = signing.key_kind(key) == "ed25519"
            if ed25519 != (parts.algorithm == cose.ED25519):
                raise NotGenuine("algorithm_mismatch", "the CoRIM's algorithm is not one for the key given")
            parts.verify(key[-32:] if ed25519 else key)
        except NotGenuine as error:
            refusal = refusal or error
        else:
            _check_meta(parts.protected, at)
            return parts.payload
    raise refusal or NotGenuine("bad_signature", "no key was given to check the CoRIM with")


def _check_meta(protected: Mapping[Any, Any], at: datetime | None) -> None:
    """The validity of the signature, in the metadata (key 1) or the CWT claims (keys 4 and 5)."""
    meta = protected.get(_META)
    if meta is not None:
        value = _decode(meta, "CoRIM metadata") if isinstance(meta, bytes) else None
        if not isinstance(value, dict):
            raise MalformedError("non_canonical", "the metadata of the CoRIM are not a map")
        _check_validity(Fields(value, "CoRIM metadata").mapping(1, default=None), at)
    claims = protected.get(_CWT_CLAIMS)
    if claims is not None:
        if not isinstance(claims, dict) or any(type(claims.get(key, 0)) is not int for key in (4, 5)):
            raise MalformedError("non_canonical", "the CWT claims of the CoRIM have no whole seconds")
        if 4 in claims or 5 in claims:
            last = claims.get(4, int(datetime.max.replace(tzinfo=UTC).timestamp()))
            _check_validity({0: Tagged(1, claims.get(5, 0)), 1: Tagged(1, last)}, at)
