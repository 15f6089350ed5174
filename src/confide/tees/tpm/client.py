# SPDX-License-Identifier: Apache-2.0
"""A small TPM 2.0 client: the commands that attesting and sealing need, and no others.

Source: "Trusted Platform Module Library, Part 3: Commands" (TCG, revision 1.59). Authorizations are by password, empty unless said
otherwise, and by policy sessions without parameter encryption: the bus to a virtual TPM is the machine's own memory.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from confide.errors import EnclaveError
from confide.tees.tpm import public, wire
from confide.wire.cursor import Cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confide.tees.tpm.transport import Transport

__all__ = ["NvIndex", "Tpm", "TpmRefused"]

OWNER: Final = public.HIERARCHIES["owner"]
ENDORSEMENT: Final = public.HIERARCHIES["endorsement"]
_NULL_HANDLE: Final = public.HIERARCHIES["null"]
_PASSWORD: Final = 0x40000009
_NO_SESSIONS: Final = 0x8001
_SESSIONS: Final = 0x8002
_NULL: Final = b"\x00\x10"
_SHA256: Final = b"\x00\x0b"
_AES_128_CFB: Final = bytes.fromhex("000600800043")
_NV_CHUNK: Final = 1024
_MAX_NV: Final = 16 * 1024
_READS: Final = 16
_CODES: Final = {
    "NV_UndefineSpace": 0x122,
    "NV_DefineSpace": 0x12A,
    "EvictControl": 0x120,
    "CreatePrimary": 0x131,
    "NV_Write": 0x137,
    "Startup": 0x144,
    "Shutdown": 0x145,
    "ActivateCredential": 0x147,
    "NV_Read": 0x14E,
    "PolicySecret": 0x151,
    "Create": 0x153,
    "HMAC": 0x155,
    "Load": 0x157,
    "Quote": 0x158,
    "Unseal": 0x15E,
    "FlushContext": 0x165,
    "NV_ReadPublic": 0x169,
    "ReadPublic": 0x173,
    "StartAuthSession": 0x176,
    "GetRandom": 0x17B,
    "PCR_Read": 0x17E,
    "PolicyPCR": 0x17F,
    "PCR_Extend": 0x182,
    "PolicyGetDigest": 0x189,
}
_INITIALIZED: Final = 0x100


class TpmRefused(EnclaveError):
    """A TPM's own refusal; ``response_code`` is its TPM_RC (Part 2, 6.6)."""

    def __init__(self, command: str, response_code: int) -> None:
        hint = ""
        if response_code & 0xBF == 0x9D:
            hint = "the PCRs are not as they were when this was sealed"
        elif response_code == 0x921:
            hint = "the TPM is locked after failed authorizations or power losses without TPM2_Shutdown; wait, or clear the lockout"
        super().__init__(
            "bad_state",
            f"the TPM refused {command} with code {response_code:#x}",
            hint=hint,
            stage="attest",
            retryable=response_code in {0x908, 0x90A, 0x920, 0x922},
        )
        self.response_code = response_code

    @property
    def is_absent(self) -> bool:
        """Whether a handle or index does not exist (TPM_RC_HANDLE, as a parameter or not)."""
        return self.response_code & 0xBF == 0x8B


@dataclass(frozen=True, slots=True)
class NvIndex:
    """TPMS_NV_PUBLIC of an index: its attributes (TPMA_NV) and size in bytes."""

    index: int
    attributes: int
    size: int


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


class Tpm:
    """One TPM behind a transport. Every method raises TpmRefused for a refusal, ``enclave.bad_state`` for no answer, MalformedError
    for an answer that cannot be read.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Let go of the transport."""
        self._transport.close()

    def command(
        self,
        name: str,
        *,
        handles: tuple[int, ...] = (),
        parameters: bytes = b"",
        authorizations: tuple[tuple[int, bytes], ...] = (),
        returns_handle: bool = False,
    ) -> Cursor:
        """The parameters of the response, a returned handle first; ``authorizations`` are session handles with their secrets."""
        # TPMS_AUTH_COMMAND: session, nonce, attributes (continueSession), HMAC or password.
        area = b"".join(_u32(one) + _u16(0) + b"\x01" + wire.sized(secret) for one, secret in authorizations)
        body = b"".join(_u32(handle) for handle in handles)
        if authorizations:
            body += _u32(len(area)) + area
        body += parameters
        tag = _SESSIONS if authorizations else _NO_SESSIONS
        sent = _u16(tag) + _u32(10 + len(body)) + _u32(_CODES[name]) + body
        cursor = Cursor(self._transport.transact(sent), f"the response to {name}")
        tag, size, code = cursor.u16(), cursor.u32(), cursor.u32()
        if code:
            raise TpmRefused(name, code)
        if size != 10 + cursor.remaining or tag != (_SESSIONS if authorizations else _NO_SESSIONS):
            raise EnclaveError("bad_state", f"the TPM's response to {name} is not one", stage="attest")
        handle = cursor.take(4) if returns_handle else b""
        found = cursor.take(cursor.u32()) if authorizations else cursor.take(cursor.remaining)
        return Cursor(handle + found, f"the response to {name}")

    def startup(self) -> None:
        """TPM2_Startup(CLEAR); one that has been started already is left as it is."""
        try:
            self.command("Startup", parameters=_u16(0))
        except TpmRefused as error:
            if error.response_code != _INITIALIZED:
                raise

    def shutdown(self) -> None:
        """TPM2_Shutdown(CLEAR). Without it a power loss counts as a failed authorization at the next start."""
        self.command("Shutdown", parameters=_u16(0))

    def random(self, count: int) -> bytes:
        """Up to 32 random bytes."""
        return wire.take_sized(self.command("GetRandom", parameters=_u16(count)), 64, "random bytes")

    # PCRs

    def pcr_read(self, selections: tuple[wire.Selection, ...]) -> Mapping[str, Mapping[int, bytes]]:
        """The selected PCRs, all of the same moment; banks and PCRs that the TPM does not have are left out."""
        for _ in range(_READS):
            found: dict[str, dict[int, bytes]] = {}
            counters = set()
            rest = selections
            while any(one.pcrs for one in rest):
                counter, values = self._pcr_read_some(rest)
                counters.add(counter)
                if not values:
                    break
                for bank, index, value in values:
                    found.setdefault(bank, {})[index] = value
                rest = tuple(
                    wire.Selection(one.bank, tuple(i for i in one.pcrs if i not in found.get(one.bank, {})))
                    for one in rest
                )
            if len(counters) <= 1:
                return found
        raise EnclaveError("bad_state", "the PCRs do not stop changing", stage="attest", retryable=True)

    def _pcr_read_some(
        self, selections: tuple[wire.Selection, ...]
    ) -> tuple[int, list[tuple[str, int, bytes]]]:
        cursor = self.command("PCR_Read", parameters=wire.encode_selections(selections))
        counter = cursor.u32()
        read = wire.decode_selections(cursor)
        values = [wire.take_sized(cursor, 64, "a PCR") for _ in range(cursor.u32())]
        cursor.expect_end()
        names = [(one.bank, index) for one in read for index in one.pcrs]
        if len(names) != len(values):
            raise EnclaveError("bad_state", "the TPM gave other PCRs than it says", stage="attest")
        return counter, [(bank, index, value) for (bank, index), value in zip(names, values, strict=True)]

    def pcr_extend(self, index: int, digests: Mapping[str, bytes]) -> None:
        """Extend one PCR in these banks."""
        numbers = {name: number for number, name in wire.BANKS.items()}
        listed = b"".join(_u16(numbers[bank]) + digest for bank, digest in digests.items())
        self.command(
            "PCR_Extend",
            handles=(index,),
            parameters=_u32(len(digests)) + listed,
            authorizations=((_PASSWORD, b""),),
        )

    # Objects

    def create_primary(self, hierarchy: int, template: bytes, *, secret: bytes = b"") -> tuple[int, bytes]:
        """A primary object of a template (TPMT_PUBLIC): its handle, to be flushed, and its public area."""
        sensitive = wire.sized(b"") + wire.sized(secret)
        cursor = self.command(
            "CreatePrimary",
            handles=(hierarchy,),
            parameters=wire.sized(sensitive) + wire.sized(template) + _u16(0) + _u32(0),
            authorizations=((_PASSWORD, b""),),
            returns_handle=True,
        )
        return cursor.u32(), wire.take_sized(cursor, public.MAX_PUBLIC, "a public area")

    @contextmanager
    def primary(self, hierarchy: int, template: bytes) -> Iterator[tuple[int, bytes]]:
        """``create_primary``, flushed at the end: a TPM has room for few objects."""
        handle, area = self.create_primary(hierarchy, template)
        try:
            yield handle, area
        finally:
            self.flush(handle)

    def create(self, parent: int, template: bytes, *, data: bytes = b"") -> tuple[bytes, bytes]:
        """An object below ``parent``: its private part, readable by this parent alone, and its public area."""
        sensitive = wire.sized(b"") + wire.sized(data)
        cursor = self.command(
            "Create",
            handles=(parent,),
            parameters=wire.sized(sensitive) + wire.sized(template) + _u16(0) + _u32(0),
            authorizations=((_PASSWORD, b""),),
        )
        return (
            wire.take_sized(cursor, 1024, "a private part"),
            wire.take_sized(cursor, public.MAX_PUBLIC, "a public area"),
        )

    def load(self, parent: int, private: bytes, area: bytes) -> int:
        """The handle of an object that ``create`` made, to be flushed."""
        return self.command(
            "Load",
            handles=(parent,),
            parameters=wire.sized(private) + wire.sized(area),
            authorizations=((_PASSWORD, b""),),
            returns_handle=True,
        ).u32()

    def read_public(self, handle: int) -> tuple[bytes, bytes, bytes]:
        """An object's public area, name and qualified name."""
        cursor = self.command("ReadPublic", handles=(handle,))
        area = wire.take_sized(cursor, public.MAX_PUBLIC, "a public area")
        return area, wire.take_sized(cursor, 66, "a name"), wire.take_sized(cursor, 66, "a name")

    def evict(self, handle: int, persistent: int) -> None:
        """Keep an object at a persistent handle, or remove it (``handle`` is ``persistent`` then)."""
        self.command(
            "EvictControl",
            handles=(OWNER, handle),
            parameters=_u32(persistent),
            authorizations=((_PASSWORD, b""),),
        )

    def flush(self, handle: int) -> None:
        """Forget a transient object or a session."""
        self.command("FlushContext", parameters=_u32(handle))

    def quote(
        self, key: int, qualifying_data: bytes, selections: tuple[wire.Selection, ...]
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST over the selected PCRs and TPMT_SIGNATURE by ``key``, in the key's own scheme."""
        cursor = self.command(
            "Quote",
            handles=(key,),
            parameters=wire.sized(qualifying_data) + _NULL + wire.encode_selections(selections),
            authorizations=((_PASSWORD, b""),),
        )
        attest = wire.take_sized(cursor, wire.MAX_ATTEST, "TPMS_ATTEST")
        return attest, cursor.take(cursor.remaining)

    # Policies

    @contextmanager
    def policy_session(self, *, trial: bool = False) -> Iterator[int]:
        """A policy session of SHA-256, neither salted nor bound; a trial session computes a policy's digest only."""
        kind = b"\x03" if trial else b"\x01"
        session = self.command(
            "StartAuthSession",
            handles=(_NULL_HANDLE, _NULL_HANDLE),
            parameters=wire.sized(bytes(16)) + _u16(0) + kind + _NULL + _SHA256,
            returns_handle=True,
        ).u32()
        try:
            yield session
        finally:
            with suppress(TpmRefused):
                self.flush(session)

    def policy_pcr(self, session: int, selections: tuple[wire.Selection, ...]) -> None:
        """Bind a session to the values that these PCRs have now."""
        parameters = wire.sized(b"") + wire.encode_selections(selections)
        self.command("PolicyPCR", handles=(session,), parameters=parameters)

    def policy_digest(self, session: int) -> bytes:
        """The digest of what a session has satisfied, 32 bytes."""
        return wire.take_sized(self.command("PolicyGetDigest", handles=(session,)), 64, "a policy")

    def policy_secret(self, session: int, entity: int) -> None:
        """Satisfy a policy that asks for the authorization of ``entity``, which is empty."""
        self.command(
            "PolicySecret",
            handles=(entity, session),
            parameters=_u16(0) + _u16(0) + _u16(0) + _u32(0),
            authorizations=((_PASSWORD, b""),),
        )

    def activate_credential(
        self, key: int, parent: int, session: int, credential: tuple[bytes, bytes]
    ) -> bytes:
        """The secret in a credential for the name of ``key``, encrypted to ``parent``, which a policy session authorizes."""
        cursor = self.command(
            "ActivateCredential",
            handles=(key, parent),
            parameters=wire.sized(credential[0]) + wire.sized(credential[1]),
            authorizations=((_PASSWORD, b""), (session, b"")),
        )
        return wire.take_sized(cursor, 64, "a secret")

    def hmac(self, key: int, data: bytes, session: int) -> bytes:
        """HMAC-SHA-256 of up to 1024 bytes under a keyed-hash object, authorized by a policy session."""
        cursor = self.command(
            "HMAC",
            handles=(key,),
            parameters=wire.sized(data) + _NULL,
            authorizations=((session, b""),),
        )
        return wire.take_sized(cursor, 64, "an HMAC")

    def unseal(self, item: int, session: int) -> bytes:
        """The data of a sealed object, authorized by a policy session."""
        cursor = self.command("Unseal", handles=(item,), authorizations=((session, b""),))
        return wire.take_sized(cursor, 128, "sealed data")

    # Non-volatile memory

    def nv_public(self, index: int) -> NvIndex | None:
        """An index of the TPM's memory, None where there is none."""
        try:
            cursor = self.command("NV_ReadPublic", handles=(index,))
        except TpmRefused as error:
            if error.is_absent:
                return None
            raise
        area = Cursor(wire.take_sized(cursor, 256, "an index"), "TPMS_NV_PUBLIC")
        found, _, attributes = area.u32(), area.u16(), area.u32()
        wire.take_sized(area, 64, "a policy")
        return NvIndex(found, attributes, area.u16())

    def nv_read(self, index: NvIndex) -> bytes:
        """All of an index, with the owner's authorization."""
        if index.size > _MAX_NV:
            raise EnclaveError("bad_state", "an index of the TPM is larger than can be read", stage="attest")
        found = bytearray()
        while len(found) < index.size:
            count = min(_NV_CHUNK, index.size - len(found))
            cursor = self.command(
                "NV_Read",
                handles=(OWNER, index.index),
                parameters=_u16(count) + _u16(len(found)),
                authorizations=((_PASSWORD, b""),),
            )
            more = wire.take_sized(cursor, count, "an index")
            if len(more) != count:
                raise EnclaveError("bad_state", "the TPM gave less of an index than it has", stage="attest")
            found += more
        return bytes(found)

    def nv_define(self, index: int, size: int, attributes: int) -> NvIndex:
        """A new index with these attributes (TPMA_NV) and no authorization of its own."""
        area = _u32(index) + _SHA256 + _u32(attributes) + _u16(0) + _u16(size)
        self.command(
            "NV_DefineSpace",
            handles=(OWNER,),
            parameters=_u16(0) + wire.sized(area),
            authorizations=((_PASSWORD, b""),),
        )
        return NvIndex(index, attributes, size)

    def nv_undefine(self, index: int) -> None:
        """Remove an index of the owner's."""
        self.command("NV_UndefineSpace", handles=(OWNER, index), authorizations=((_PASSWORD, b""),))

    def nv_write(self, index: int, data: bytes) -> None:
        """Write from the start of an index, with the owner's authorization."""
        for start in range(0, len(data), _NV_CHUNK):
            self.command(
                "NV_Write",
                handles=(OWNER, index),
                parameters=wire.sized(data[start : start + _NV_CHUNK]) + _u16(start),
                authorizations=((_PASSWORD, b""),),
            )
