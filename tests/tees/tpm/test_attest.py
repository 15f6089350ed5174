# SPDX-License-Identifier: Apache-2.0
"""Quotes and keys of a real TPM's code (swtpm), verified; Azure's and Google's machines by their exact bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import binding
from confide.attestation.anchors import TrustAnchor
from confide.attestation.attester import Attester
from confide.attestation.evidence import Evidence
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey, issue
from confide.errors import TeeUnavailable
from confide.simulator import tpm as simulator
from confide.tees.tpm import attest, client, hcl, measure, public, sealing, transport, wire
from confide.tees.tpm.attest import Device
from confide.tees.tpm.client import Tpm, TpmRefused
from confide.tees.tpm.metadata import MetadataService
from confide.wire import cbor
from confide.wire.cursor import Cursor
from support import boot_logs, snp, swtpm, tpm
from support.refusal import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from confide.attestation.attester import PlatformEvidence

REPORT_DATA = bytes(range(64))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SELECTION = (wire.Selection("sha256", (0, 4, 16, 23)),)


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpm]:
    """One swtpm for the tests that leave it as it was, but for PCR 16 and 23."""
    with swtpm.running(tmp_path_factory.mktemp("swtpm")) as tpm_:
        yield tpm_


@pytest.fixture
def device(software: Tpm) -> Device:
    return Device(software, event_log=None, pcrs=(4, 16))


def pinned(device: Device) -> dict[str, Any]:
    return {"pcr": "ANY", "ak": [device.fingerprint().hex()]}


def verify(found: PlatformEvidence, reference: dict[str, Any], **options: Any) -> Any:
    policy = AppraisalPolicy.from_table({"tees": ["tpm"], "reference": {"tpm": reference}})
    evidence = Evidence(found.platform, found.devices, endorsements=found.endorsements)
    verifier = Verifier(policy, **options)
    return verifier.verify(Evidence.decode(evidence.encode()), at=NOW, report_data=REPORT_DATA)


# A real TPM's code.


def test_a_quote_of_a_software_tpm_verifies_with_its_key_pinned(device: Device) -> None:
    assert isinstance(device, Attester)
    assert device.kind == "other"
    result = verify(device.attest(REPORT_DATA), pinned(device))
    details = result.claims.details
    assert (details.trust, details.scheme, details.hash_name) == ("pinned", "ecdsa", "sha256")
    assert result.claims.report_data == binding.tpm_qualifying_data(REPORT_DATA)
    assert details.clock.reset_count >= 1
    assert details.pcrs["sha256"][17] == measure.initial(17)
    assert {note.code for note in result.reasons} >= {"note.unproven"}
    other = {"pcr": "ANY", "ak": [hashlib.sha256(b"another key").hexdigest()]}
    assert tpm.codes(lambda: verify(device.attest(REPORT_DATA), other)) == ["not_genuine.untrusted_root"]


def test_the_attestation_key_is_the_same_at_every_call(device: Device) -> None:
    assert device.fingerprint() == device.fingerprint()


def test_a_quote_of_a_software_tpm_verifies_with_its_key_certified(software: Tpm) -> None:
    with software.primary(client.ENDORSEMENT, attest.ak_template()) as (_, area):
        key = public.decode_public(area).spki()
    root, name = IssuingKey.from_scalar(5), (("O", "tests"), ("CN", "root"))
    fields: dict[str, Any] = {
        "issuer": name,
        "signing_key": root,
        "not_before": datetime(2026, 1, 1, tzinfo=UTC),
        "not_after": datetime(2027, 1, 1, tzinfo=UTC),
    }
    ca = issue(
        **fields,
        subject=name,
        public_key=root.public_key_der,
        serial=1,
        is_ca=True,
        key_usage=frozenset({"key_cert_sign"}),
    )
    usage = frozenset({"digital_signature"})
    leaf = issue(**fields, subject="AK", public_key=key, serial=2, is_ca=False, key_usage=usage)
    made = Device(software, event_log=None, certificates=(leaf,))
    anchor = TrustAnchor("tpm", "tests", (ca,))
    result = verify(made.attest(REPORT_DATA), {"pcr": "ANY"}, extra_anchors=(anchor,))
    assert result.claims.details.trust == "certificate"
    assert len(result.claims.chain) == 2
    bare = Device(software, event_log=None)
    refused = tpm.codes(lambda: verify(bare.attest(REPORT_DATA), {"pcr": "ANY"}, extra_anchors=(anchor,)))
    assert refused == ["not_genuine.untrusted_root"]


def test_an_extended_pcr_is_refused_by_a_policy_of_the_time_before(software: Tpm, device: Device) -> None:
    before = software.pcr_read(SELECTION)["sha256"]
    reference = pinned(device) | {"pcr": {str(index): [before[index].hex()] for index in before}}
    assert verify(device.attest(REPORT_DATA), reference).verdict == "accepted"
    digest = hashlib.sha256(b"another program").digest()
    software.pcr_extend(23, {"sha256": digest})
    assert tpm.codes(lambda: verify(device.attest(REPORT_DATA), reference)) == ["not_acceptable.measurement"]
    assert software.pcr_read(SELECTION)["sha256"][23] == measure.extend(before[23], digest)


@pytest.mark.parametrize(
    ("scheme", "hash_name", "curve"),
    [
        ("ecdsa", "sha384", "p384"),
        ("rsassa", "sha256", ""),
        ("rsapss", "sha256", ""),
        ("rsapss", "sha384", ""),
    ],
)
def test_quotes_in_every_scheme_of_a_tpm_verify(
    software: Tpm, scheme: str, hash_name: str, curve: str
) -> None:
    template = public.encode_public(
        attributes=public.decode_public(attest.ak_template()).attributes,
        scheme=public.Scheme(scheme, hash_name),
        curve=curve,
    )
    banks = (wire.Selection("sha384", (0, 7)), wire.Selection("sha256", (1, 4)), wire.Selection("sha1", (9,)))
    with software.primary(client.OWNER, template) as (key, area):
        signed, signature = software.quote(key, b"nonce", banks)
    part = wire.TpmEvidence(signed, signature, software.pcr_read(banks), ak=area).encode()
    fingerprint = hashlib.sha256(public.decode_public(area).spki()).digest()
    claims = tpm.authenticate(part, anchors=(TrustAnchor("tpm", "pin", (), keys=(fingerprint,)),))
    assert sorted(claims.measurements) == ["pcr0.sha384", "pcr1", "pcr4", "pcr7.sha384"]


def test_tpm_04_a_key_below_a_parent_is_bound_by_its_qualified_name(software: Tpm) -> None:
    with software.primary(client.OWNER, sealing.storage_root()) as (parent, _):
        private, area = software.create(parent, attest.ak_template())
        key = software.load(parent, private, area)
        qualified = software.read_public(parent)[2]
    try:
        signed, signature = software.quote(key, b"nonce", SELECTION)
    finally:
        software.flush(key)
    part = wire.TpmEvidence(signed, signature, software.pcr_read(SELECTION), ak=area, parent=qualified)
    fingerprint = hashlib.sha256(public.decode_public(area).spki()).digest()
    anchors = (TrustAnchor("tpm", "pin", (), keys=(fingerprint,)),)
    assert tpm.authenticate(part.encode(), anchors=anchors)
    without = wire.TpmEvidence(signed, signature, part.pcrs, ak=area)
    assert tpm.refusal(without.encode(), anchors=anchors) == ["not_genuine.identity_mismatch"]


def test_tpm_04_a_key_that_is_not_restricted_signs_a_forged_quote_and_is_refused(software: Tpm) -> None:
    """The TPM says so in the public area, whose name it signs."""
    names = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "sign")
    template = public.encode_public(
        attributes=public.attributes(*names), scheme=public.Scheme("ecdsa", "sha256"), curve="p256"
    )
    with software.primary(client.ENDORSEMENT, template) as (key, area):
        signed, signature = software.quote(key, b"nonce", SELECTION)
    part = wire.TpmEvidence(signed, signature, software.pcr_read(SELECTION), ak=area).encode()
    fingerprint = hashlib.sha256(public.decode_public(area).spki()).digest()
    found = tpm.refusal(part, anchors=(TrustAnchor("tpm", "pin", (), keys=(fingerprint,)),))
    assert found == ["not_genuine.identity_mismatch"]


def test_sealed_data_opens_while_the_pcrs_are_what_they_were(software: Tpm, device: Device) -> None:
    blob = device.seal(b"a key of 32 bytes, or so it seems")
    assert device.unseal(blob) == b"a key of 32 bytes, or so it seems"
    assert b"a key of" not in blob
    software.pcr_extend(16, {"sha256": bytes(32)})
    with pytest.raises(TpmRefused) as caught:
        device.unseal(blob)
    assert caught.value.response_code & 0xBF == 0x9D
    assert "PCRs" in caught.value.hint
    # TPM2_PolicyPCR is all that opens it: no password does.
    fields = cbor.decode(blob, what="blob", max_size=4096)
    with software.primary(client.OWNER, sealing.storage_root()) as (parent, _):
        item = software.load(parent, fields["private"], fields["public"])
    try:
        with pytest.raises(TpmRefused):
            software.command("Unseal", handles=(item,), authorizations=((0x40000009, b""),))
    finally:
        software.flush(item)


def test_derived_keys_follow_the_label_and_the_pcrs(software: Tpm, device: Device) -> None:
    first = device.derive_key(b"vault")
    assert len(first) == 32
    assert first == device.derive_key(b"vault")
    assert first != device.derive_key(b"other")
    software.pcr_extend(16, {"sha256": bytes(32)})
    assert first != device.derive_key(b"vault")
    assert first != Device(software, event_log=None, pcrs=(4,)).derive_key(b"vault")


def test_the_object_of_other_pcrs_can_be_made_and_gives_no_key(software: Tpm) -> None:
    """Whoever boots another system can name the old one's policy; the TPM does not let it be satisfied."""
    chosen = (wire.Selection("sha256", (16,)),)
    policy = sealing._policy(software, chosen)
    hmac_sha256 = bytes.fromhex("0005000b")
    names = ("fixedTPM", "fixedParent", "sensitiveDataOrigin", "noDA", "sign")
    template = sealing._keyed_hash(policy, public.attributes(*names), hmac_sha256)
    with software.primary(client.OWNER, template) as (key, _), software.policy_session() as session:
        software.policy_pcr(session, chosen)
        assert len(software.hmac(key, b"data", session)) == 32
    software.pcr_extend(16, {"sha256": bytes(32)})
    with software.primary(client.OWNER, template) as (key, _), software.policy_session() as session:
        software.policy_pcr(session, chosen)
        with pytest.raises(TpmRefused) as caught:
            software.hmac(key, b"data", session)
    assert caught.value.response_code & 0xBF == 0x9D
    with software.primary(client.OWNER, template) as (key, _), pytest.raises(TpmRefused):
        software.hmac(key, b"data", 0x40000009)


def test_derived_and_sealed_keys_survive_a_restart_into_the_same_state(tmp_path: Path) -> None:
    folder = tmp_path / "swtpm"
    with swtpm.running(folder) as first:
        made = Device(first, event_log=None)
        key, blob, fingerprint = made.derive_key(b"vault"), made.seal(b"secret"), made.fingerprint()
    with swtpm.running(folder) as again:
        made = Device(again, event_log=None)
        assert made.derive_key(b"vault") == key
        assert made.unseal(blob) == b"secret"
        assert made.fingerprint() == fingerprint
    with swtpm.running(tmp_path / "another") as other:
        made = Device(other, event_log=None)
        assert made.derive_key(b"vault") != key
        assert made.fingerprint() != fingerprint
        with pytest.raises(TpmRefused):
            made.unseal(blob)


def test_tpm_08_a_restart_raises_the_counter_that_a_policy_can_remember(tmp_path: Path) -> None:
    folder = tmp_path / "swtpm"
    seen = []
    for _ in range(2):
        with swtpm.running(folder) as tpm_:
            made = Device(tpm_, event_log=None)
            found = made.attest(REPORT_DATA)
            clock = verify(found, pinned(made)).claims.details.clock
            seen.append((found, pinned(made), clock.reset_count))
    assert seen[1][2] == seen[0][2] + 1
    later = {"last_seen": {"reset_count": seen[1][2]}}
    assert verify(seen[1][0], seen[1][1] | later).verdict == "accepted"
    assert tpm.codes(lambda: verify(seen[0][0], seen[0][1] | later)) == ["not_acceptable.rollback"]


@pytest.mark.parametrize("pcrs", [(), (24,)])
def test_a_key_bound_to_no_pcr_is_refused(software: Tpm, pcrs: tuple[int, ...]) -> None:
    made = Device(software, event_log=None, pcrs=pcrs)
    assert code_of(made.derive_key, b"vault") == "configuration.invalid"
    assert code_of(made.seal, b"secret") == "configuration.invalid"


def test_sealing_refuses_what_is_no_blob_and_what_is_too_long(device: Device) -> None:
    assert code_of(device.seal, b"") == "configuration.invalid"
    assert code_of(device.seal, bytes(129)) == "configuration.invalid"
    blob = device.seal(b"secret")
    for size in range(0, len(blob), 5):
        assert code_of(device.unseal, blob[:size]).startswith("malformed."), size
    fields = cbor.decode(blob, what="blob", max_size=4096)
    for change in ({"version": 2}, {"pcrs": {"md5": [1]}}, {"pcrs": {"sha256": [24]}}, {"more": 1}):
        assert code_of(device.unseal, cbor.encode(fields | change)).startswith("malformed."), change


def test_a_tpms_memory_is_defined_written_read_and_removed(software: Tpm) -> None:
    index = 0x0150_0001
    assert software.nv_public(index) is None
    data = bytes(range(256)) * 6
    software.nv_define(index, len(data), attest.NV_OWNER_READ | attest.NV_OWNER_WRITE)
    try:
        software.nv_write(index, data)
        there = software.nv_public(index)
        assert there is not None
        assert there.size == len(data)
        assert software.nv_read(there) == data
    finally:
        software.nv_undefine(index)
    assert software.nv_public(index) is None


def test_google_machines_use_the_key_whose_certificate_lies_in_the_tpm(software: Tpm) -> None:
    """The layout of Google's vTPM, in a real TPM's memory: template at 0x01c10003, certificate at 0x01c10002."""
    with software.primary(client.ENDORSEMENT, attest.ak_template()) as (_, area):
        key = public.decode_public(area).spki()
    made = simulator.Platform.create(seed=4)
    certificate = made.certificate(public_key=key)
    # Google's template is the whole public area of the key, but for its unique part.
    for index, data in ((0x01C1_0002, certificate), (0x01C1_0003, attest.ak_template())):
        software.nv_define(index, len(data), attest.NV_OWNER_READ | attest.NV_OWNER_WRITE)
        software.nv_write(index, data)
    try:
        google = Device(software, event_log=None)
        assert google.kind == "google"
        found = google.attest(REPORT_DATA)
    finally:
        for index in (0x01C1_0002, 0x01C1_0003):
            software.nv_undefine(index)
    assert found.endorsements.certificates == (certificate,)
    result = verify(found, {"pcr": "ANY"}, extra_anchors=(made.anchor,), allow_simulated=True)
    assert result.claims.details.trust == "certificate"


def test_the_firmwares_log_goes_along_where_it_is_readable(software: Tpm, tmp_path: Path) -> None:
    log = boot_logs.log([(0, 4, b"\x00\x00\x00\x00", b"\x00\x00\x00\x00")], ("sha256",), index=0)
    path = tmp_path / "log"
    path.write_bytes(log)
    found = Device(software, event_log=path).attest(REPORT_DATA)
    assert [one.data for one in found.endorsements.documents] == [log]
    path.write_bytes(bytes(1 << 17))
    assert Device(software, event_log=path).attest(REPORT_DATA).endorsements.documents == ()
    assert Device(software, event_log=tmp_path / "none").attest(REPORT_DATA).endorsements.documents == ()


def test_objects_do_not_pile_up_in_the_tpm(device: Device) -> None:
    """A TPM has room for three objects or so; what is refused lets go of its own as well."""
    for _ in range(8):
        device.attest(REPORT_DATA)
        device.unseal(device.seal(b"secret"))
        with pytest.raises(TpmRefused):
            device.unseal(cbor.encode(_damaged(device.seal(b"secret"))))


def _damaged(blob: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = cbor.decode(blob, what="blob", max_size=4096)
    return fields | {"private": fields["private"][:-1] + bytes([fields["private"][-1] ^ 1])}


# Finding a TPM, and TPMs that misbehave.


def test_a_machine_without_a_tpm_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TeeUnavailable) as caught:
        Device.find(path=tmp_path / "tpmrm0")
    assert (caught.value.code, bool(caught.value.hint)) == ("enclave.tee", True)
    with pytest.raises(TeeUnavailable):
        Device.find(socket=tmp_path / "socket")


def test_a_swtpm_is_found_by_its_socket(tmp_path: Path) -> None:
    with swtpm.process(tmp_path / "swtpm") as socket:
        found = Device.find(socket=socket)
        try:
            assert verify(found.attest(REPORT_DATA), pinned(found)).verdict == "accepted"
        finally:
            found._tpm.shutdown()
            found.close()


class Scripted:
    """A transport that answers each command by a rule, and keeps what it was sent."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.sent: list[bytes] = []

    def transact(self, command: bytes) -> bytes:
        self.sent.append(command)
        return self.answer(command)

    def close(self) -> None:
        pass


def response(parameters: bytes = b"", *, handle: bytes = b"", sessions: bool = False, code: int = 0) -> bytes:
    """A TPM's response, field by field."""
    body = handle
    if sessions:
        body += len(parameters).to_bytes(4, "big") + parameters + b"\x00\x00\x01\x00\x00"
    else:
        body += parameters
    tag = b"\x80\x02" if sessions else b"\x80\x01"
    return tag + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x80\x01",
        b"\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00",
        b"\x80\x02" + response(b"\x00\x04abcd")[2:],
        response(b"\x00\x04abcd") + b"\x00",
        response(b"\x00\xffabcd"),
        bytes(4096),
    ],
)
def test_answers_that_are_no_responses_are_typed_errors(answer: bytes) -> None:
    assert code_of(Tpm(Scripted(lambda _: answer)).random, 4).partition(".")[0] in {"enclave", "malformed"}


def test_commands_and_refusals_have_the_exact_bytes_of_the_specification() -> None:
    fake = Scripted(lambda _: response(b"\x00\x04abcd"))
    assert Tpm(fake).random(4) == b"abcd"
    assert fake.sent == [bytes.fromhex("8001 0000000c 0000017b 0004")]
    fake = Scripted(lambda _: response(sessions=True))
    Tpm(fake).pcr_extend(16, {"sha256": b"\x11" * 32})
    area = "00000009 40000009 0000 01 0000"
    assert fake.sent == [bytes.fromhex(f"8002 00000041 00000182 00000010 {area} 00000001 000b {'11' * 32}")]
    locked = Tpm(Scripted(lambda _: response(code=0x921)))
    with pytest.raises(TpmRefused) as caught:
        locked.random(4)
    assert (caught.value.response_code, caught.value.retryable) == (0x921, False)
    assert "lock" in caught.value.hint
    with pytest.raises(TpmRefused) as caught:
        Tpm(Scripted(lambda _: response(code=0x922))).random(4)
    assert caught.value.retryable


# Azure's machines.


class AzureTpm:
    """Azure's vTPM behind the transport: the paravisor answers a write to 0x01400002 by a new report at 0x01400001."""

    def __init__(self, *, tee: str = "snp", stale: bool = False, defined: int | None = None) -> None:
        self.tpm = tpm.platform(scheme="rsassa")
        self.tee = tee
        self.stale = stale
        self.size = defined
        self.commands: list[tuple[int, bytes]] = []
        self.case = self._case(bytes(64))

    def _case(self, user_data: bytes) -> tpm.AzureCase:
        return tpm.azure(claims={"user-data": user_data.hex().upper()})

    def answer(self, command: bytes) -> bytes:
        code, body = int.from_bytes(command[6:10], "big"), command[10:]
        self.commands.append((code, body))
        if code == 0x169:  # NV_ReadPublic
            index = int.from_bytes(body, "big")
            size = {0x0140_0001: len(self.report), 0x0140_0002: self.size}.get(index)
            if size is None:
                return response(code=0x18B)
            area = body + b"\x00\x0b" + bytes(4) + b"\x00\x00" + size.to_bytes(2, "big")
            return response(wire.sized(area) + wire.sized(bytes(34)))
        if code == 0x122:  # NV_UndefineSpace
            self.size = None
            return response(sessions=True)
        if code == 0x12A:  # NV_DefineSpace
            self.size = int.from_bytes(body[-2:], "big")
            return response(sessions=True)
        if code == 0x137:  # NV_Write
            if not self.stale:
                self.case = self._case(body[23:-2])
            return response(sessions=True)
        if code == 0x14E:  # NV_Read
            count, offset = (int.from_bytes(body[at:][:2], "big") for at in (-4, -2))
            return response(wire.sized(self.report[offset : offset + count]), sessions=True)
        if code == 0x158:  # Quote
            self.quoted = body
            qualifying = body[19:51]
            signed = self.tpm.attest(qualifying).encode()
            return response(wire.sized(signed) + self.tpm.sign(signed).encode(), sessions=True)
        if code == 0x17E:  # PCR_Read, eight values at most
            (selection,) = wire.decode_selections(Cursor(body, "selection"))
            some = selection.pcrs[:8]
            values = b"".join(wire.sized(self.tpm.pcrs["sha256"][index]) for index in some)
            read = wire.encode_selections((wire.Selection("sha256", some),))
            return response(bytes(4) + read + len(some).to_bytes(4, "big") + values)
        return response(code=0x143)

    @property
    def report(self) -> bytes:
        whole = self.case.evidence.hcl
        assert whole is not None
        if self.tee == "snp":
            return whole
        claims = hcl.decode_hcl(whole).claims_json
        return simulator.hcl_report(bytes(1024), claims, tee="tdx")


class Host:
    """What the host adds, without a network."""

    def __init__(self, certificates: tuple[bytes, ...] = ()) -> None:
        self.given = certificates
        self.asked: list[bytes] = []

    def certificates(self) -> tuple[bytes, ...]:
        return self.given

    def td_quote(self, report: bytes) -> bytes:
        self.asked.append(report)
        return b"a TD quote"


def azure_device(fake: AzureTpm, host: Host | None = None) -> tuple[Device, list[float]]:
    waits: list[float] = []
    made = Device(Tpm(Scripted(fake.answer)), event_log=None, metadata=host or Host(), sleep=waits.append)
    return made, waits


def test_azure_machines_write_wait_read_and_quote() -> None:
    fake = AzureTpm()
    made, waits = azure_device(fake, Host((b"certificate",)))
    assert made.kind == "azure"
    fake.commands.clear()
    found = made.attest(REPORT_DATA)
    assert waits == [3.0]
    assert found.platform.format == "snp"
    assert found.platform.data == fake.case.report.report
    assert found.endorsements.certificates == (b"certificate",)
    names = [code for code, _ in fake.commands]
    reads = -(-len(fake.report) // 1024)
    assert names == [0x169, 0x169, 0x12A, 0x137, 0x169, *[0x14E] * reads, 0x158, *[0x17E] * 3]
    password = "00000009 40000009 0000 01 0000"
    # NV_DefineSpace: owner, index 0x01400002, SHA-256, OWNERWRITE and OWNERREAD, no policy, 64 bytes.
    define = bytes.fromhex(f"40000001 {password} 0000 000e 01400002 000b 00020002 0000 0040")
    assert fake.commands[2] == (0x12A, define)
    # NV_Write: owner, index, 64 bytes at offset 0.
    write = bytes.fromhex(f"40000001 01400002 {password} 0040 {REPORT_DATA.hex()} 0000")
    assert fake.commands[3] == (0x137, write)
    # NV_Read: owner, index 0x01400001, 1024 bytes at offset 0.
    assert fake.commands[5] == (0x14E, bytes.fromhex(f"40000001 01400001 {password} 0400 0000"))
    # Quote: AK 0x81000003, 32 bytes of qualifying data, the key's own scheme, SHA-256 of PCR 0 to 23.
    qualifying = binding.tpm_qualifying_data(REPORT_DATA).hex()
    quote = bytes.fromhex(f"81000003 {password} 0020 {qualifying} 0010 00000001 000b 03 ffffff")
    assert fake.quoted == quote


def test_what_an_azure_machine_attests_verifies_as_a_whole() -> None:
    fake = AzureTpm()
    made, _ = azure_device(fake)
    found = made.attest(REPORT_DATA)
    policy = AppraisalPolicy.from_table(
        {
            "tees": ["snp", "tpm"],
            "reference": {"snp": {"measurement": [snp.MEASUREMENT.hex()]}, "tpm": {"pcr": "ANY"}},
        }
    )
    verifier = Verifier(
        policy,
        extra_anchors=(fake.case.report.authority.anchor(),),
        endorsements=fake.case.report.evidence.endorsements,
    )
    evidence = Evidence(found.platform, found.devices)
    result = verifier.verify(Evidence.decode(evidence.encode()), at=tpm.AT, report_data=REPORT_DATA)
    assert [one.binding for one in result.parts] == ["bound"]
    details: Any = result.parts[0].claims.details
    assert details.azure.user_data == REPORT_DATA
    assert tpm.codes(lambda: verifier.verify(evidence, at=tpm.AT, report_data=bytes(64))) == [
        "not_acceptable.channel"
    ]


def test_an_index_of_another_size_is_made_anew_and_one_of_the_right_size_is_kept() -> None:
    fake = AzureTpm(defined=32)
    made, _ = azure_device(fake)
    made.attest(REPORT_DATA)
    assert [code for code, _ in fake.commands if code in {0x122, 0x12A}] == [0x122, 0x12A]
    fake.commands.clear()
    made.attest(bytes(64))
    assert [code for code, _ in fake.commands if code in {0x122, 0x12A}] == []


def test_tpm_06_a_report_over_other_data_is_waited_for_and_then_refused() -> None:
    """The report of boot, whose user data are zeros, is not taken for the one that was asked for."""
    made, waits = azure_device(AzureTpm(stale=True))
    assert code_of(made.attest, REPORT_DATA) == "enclave.bad_state"
    assert waits == [3.0, 3.0, 3.0]


def test_azure_tdx_machines_turn_the_tdreport_into_a_quote_at_the_host() -> None:
    host = Host()
    made, _ = azure_device(AzureTpm(tee="tdx"), host)
    found = made.attest(REPORT_DATA)
    assert (found.platform.format, found.platform.data) == ("tdx", b"a TD quote")
    assert host.asked == [bytes(1024)]


def test_report_data_of_another_length_is_a_callers_mistake() -> None:
    made, _ = azure_device(AzureTpm())
    assert code_of(made.attest, bytes(32)) == "configuration.report_data"


@contextmanager
def metadata(status: int, body: bytes) -> Iterator[tuple[MetadataService, list[tuple[str, str, bytes]]]]:
    """Azure's metadata service on the loopback, answering one request."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            assert self.headers["Metadata"] == "true"
            seen.append((self.command, self.path, self.rfile.read(length)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the names that the standard library calls

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.timeout = 20
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield MetadataService("127.0.0.1", server.server_port), seen
        thread.join(20)


def test_the_metadata_service_is_asked_as_azure_documents_it() -> None:
    with metadata(200, b'{"quote":"AAEC_w"}') as (service, seen):
        assert service.td_quote(b"\xfb\xff") == b"\x00\x01\x02\xff"
    assert seen == [("POST", "/acc/tdquote", b'{"report":"-_8"}')]
    root = simulator.Platform.create(seed=1).root
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(root).decode().replace(chr(10), '')}"
    lines = pem.split("\n")
    folded = "\n".join(lines[1][at : at + 64] for at in range(0, len(lines[1]), 64))
    text = f"{lines[0]}\n{folded}\n-----END CERTIFICATE-----\n"
    answer = json.dumps({"vcekCert": text, "certificateChain": text, "tcbm": "0"}).encode()
    with metadata(200, answer) as (service, seen):
        assert service.certificates() == (root, root)
    assert seen == [("GET", "/metadata/THIM/amd/certification", b"")]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"{}"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"quote":1}'),
        (200, b"<html>"),
        (200, bytes(1 << 18)),
    ],
)
def test_a_metadata_service_that_fails_is_a_typed_error(status: int, body: bytes) -> None:
    with metadata(status, body) as (service, _):
        assert code_of(service.td_quote, b"report").partition(".")[0] in {"enclave", "malformed"}
    with metadata(status, body) as (service, _):
        assert service.certificates() == ()


def test_a_machine_without_the_metadata_service_says_so() -> None:
    service = MetadataService("127.0.0.1", 9)
    assert code_of(service.td_quote, b"report") == "enclave.bad_state"
    assert service.certificates() == ()


def test_a_path_that_is_no_device_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    plain = transport.DeviceFile(path)
    assert code_of(Tpm(plain).random, 4).partition(".")[0] in {"enclave", "malformed"}
    plain.close()
