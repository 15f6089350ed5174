# SPDX-License-Identifier: Apache-2.0
"""Make the committed corpus anew: `python -m fuzz.seeds`. Everything in it comes from the simulators and from this file.

Each seed is accepted by its target, except those whose names begin with `refused`, which come close.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from confide.attestation import corim, reference
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.key_material import KeyMaterial, ServiceIdentity
from confide.attestation.reference import ReferenceValues
from confide.crypto.cose import sign1
from confide.crypto.signing import SigningKey
from confide.errors import ConfideError
from confide.simulator import devices, nvidia
from confide.tees import cache, fetch
from confide.tees.snp import wire as snp
from confide.tees.tpm import wire as tpm
from confide.wire import cbor
from fuzz.targets import AT, TARGETS

if TYPE_CHECKING:
    from confide.attestation.anchors import TrustAnchor

CORPUS = Path(__file__).parent / "corpus"
DATA = bytes(range(64))


def seeds() -> dict[str, dict[str, bytes]]:
    """The seeds by target and name."""
    found: dict[str, dict[str, bytes]] = {name: {} for name in TARGETS}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "simulator"
        made = {
            tee: devices.example(tee, DATA[:32] if tee == "nvidia" else DATA, at=AT, directory=directory)
            for tee in devices.TEES
        }
        _roots(devices.anchors(directory))
    for tee, evidence in made.items():
        found["verify"][tee] = evidence.encode()
    for tee, target in (
        ("snp", "snp"),
        ("tdx", "quote_tdx"),
        ("sgx", "quote_sgx"),
        ("nitro", "nitro"),
        ("tpm", "tpm"),
        ("nvidia", "nvidia"),
    ):
        part = made[tee].platform
        found[target][f"{tee}"] = part.data
        found["any"][f"refused-{tee}"] = part.data
        _documents(found, tee, made[tee].endorsements)
    found["bundle"]["snp"] = Evidence(made["snp"].platform, endorsements=made["snp"].endorsements).encode()
    found["bundle"]["devices"] = Evidence(
        EvidencePart("snp", made["snp"].platform.data), devices=(made["nvidia"].platform,)
    ).encode()
    _azure(found)
    _logs_and_statuses(found)
    table = tuple(
        snp.CertificateTableEntry(snp.VCEK_GUID, der) for der in made["snp"].endorsements.certificates[:1]
    )
    found["certificate_table"]["vcek"] = snp.encode_certificate_table(table)
    found["endorsements"]["certificates"] = Endorsements((b"certificate",), (b"crl",)).encode()
    found["endorsements"]["document"] = Endorsements(documents=(EvidencePart("ocsp", b"x"),)).encode()
    _words(found)
    _found(found)
    return found


def _roots(anchors: tuple[TrustAnchor, ...]) -> None:
    listed = [
        {"tee": one.tee, "name": one.name, "certificates": [der.hex() for der in one.certificates]}
        for one in anchors
    ]
    (CORPUS.parent / "roots.json").write_text(json.dumps(listed, indent=1) + "\n")


def _azure(found: dict[str, dict[str, bytes]]) -> None:
    """Azure's JSON around a minted report, as a guest's agent writes it."""
    from support import tpm as cases  # In tests/, which is not on the path of the fuzzer itself.

    case = cases.azure()
    part = case.evidence
    report = part.hcl or b""
    found["hcl"]["snp"] = report
    found["azure"]["snp"] = json.dumps(
        {
            "version": 1,
            "tpm_quote": {
                "signature": tpm.decode_signature(part.signature).values[0].hex(),
                "message": part.attest.hex(),
                "pcrs": [value.hex() for _, value in sorted(part.pcrs["sha256"].items())],
            },
            "hcl_report": base64.urlsafe_b64encode(report).decode(),
            "vcek": base64.urlsafe_b64encode(case.report.certificate).decode(),
        }
    ).encode()


def _logs_and_statuses(found: dict[str, dict[str, bytes]]) -> None:
    from support import boot_logs

    rows = [(0, 3, b"a", b"a"), (2, 0x80000007, b"b", b"bb")]
    found["event_log"]["sha384"] = boot_logs.log(rows)
    found["event_log"]["banks"] = boot_logs.log(rows, ("sha256", "sha384"))
    for number, part in enumerate(nvidia.Platform.create().ocsp(AT)[:2]):
        found["ocsp"][f"nvidia-{number}"] = part.data


def _found(found: dict[str, dict[str, bytes]]) -> None:
    """What the fuzzer once found, each of which is refused since then."""
    document = found["nvidia_rim"]["nvidia-0"]
    found["nvidia_rim"]["refused-namespace"] = document.replace(
        b"<SoftwareIdentity", b'<SoftwareIdentity xmlns:x="a"', 1
    )


def _documents(found: dict[str, dict[str, bytes]], tee: str, endorsements: Endorsements) -> None:
    for number, der in enumerate(endorsements.certificates):
        found["certificate"][f"{tee}-{number}"] = der
        found["der"][f"{tee}-{number}"] = der
    if endorsements.certificates:
        text = fetch.pem_text(endorsements.certificates[:2], endorsements.crls[:1])
        found["pem"][tee] = text.encode()
    for number, der in enumerate(endorsements.crls):
        found["crl"][f"{tee}-{number}"] = der
    names = {
        "intel-collateral": "collateral",
        "nvidia-rim": "nvidia_rim",
        "ocsp": "ocsp",
        "event-log": "event_log",
        "jwks": "jwks",
    }
    for number, part in enumerate(endorsements.documents):
        target = names.get(part.format)
        if target is not None:
            found[target][f"{tee}-{number}"] = part.data


def _words(found: dict[str, dict[str, bytes]]) -> None:
    """What is short enough to be written here."""
    for tee, register in (("snp", "measurement"), ("tdx", "mrtd")):
        values = ReferenceValues(tee, {register: (bytes(48),)}, "seed")
        found["corim"][tee] = corim.write((values,), identifier="seed")
        found["corim"][f"{tee}-toml"] = reference.write((values,))
    key = SigningKey.from_bytes(bytes(32))
    found["cose"]["refused-algorithm"] = sign1(key, b"payload")
    protected = cbor.encode({1: -7})
    found["cose"]["es256"] = b"\xd2" + cbor.encode([protected, {}, b"payload", bytes(64)])
    found["cbor"]["map"] = cbor.encode({1: [True, None, "text", b"bytes", -(1 << 40)], "k": {"x": 0}})
    found["cbor"]["refused-nest"] = b"\x81" * 64 + b"\x00"
    found["json"]["object"] = b'{"a": [1, -2.5e3, true, null, "\\u00e9"], "b": {}}'
    found["json"]["refused-number"] = b"[1e400]"
    found["der"]["sequence"] = bytes.fromhex("300f02010106032a0304040230000101ff")
    found["dstack_log"]["events"] = json.dumps(
        [{"imr": 3, "event_type": 134217729, "digest": "00" * 48, "event": "x", "event_payload": "00"}]
    ).encode()
    # The base point of P-256, SEC 2 section 2.4.2.
    point = bytes.fromhex(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    found["jwks"]["ec"] = json.dumps(
        {
            "keys": [
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "use": "sig",
                    "kid": "1",
                    "x": _b64(point[:32]),
                    "y": _b64(point[32:]),
                }
            ]
        }
    ).encode()
    found["pcs"]["tcb"] = (
        b'{"tcbInfo":{"nextUpdate":"2026-07-01T00:00:00Z"},"signature":"' + b"0" * 128 + b'"}'
    )
    found["pcs"]["rim"] = json.dumps({"id": "x", "rim": base64.b64encode(b"<x/>").decode()}).encode()
    found["policy"]["snp"] = (
        b'tees = ["snp"]\nmax_age = "1h"\n[reference.snp]\nmeasurement = "ANY"\nmin_tcb = { snp = 22 }\n'
    )
    found["policy"]["all"] = (
        b'tees = ["tdx", "sgx", "nitro", "tpm", "nvidia"]\ntcb_status = ["UpToDate"]\nmin_tcb_evaluation = 17\n'
        b'[reference.tdx]\nmrtd = "ANY"\n[reference.sgx]\nmrenclave = "ANY"\n[reference.nitro]\npcr0 = "ANY"\n'
        b'[reference.tpm]\npcr = "ANY"\n[reference.nvidia]\nrim = "ANY"\n'
    )
    found["key_material"]["channel"] = KeyMaterial(
        purpose="channel",
        audience="",
        service=ServiceIdentity("model", bytes(32), "seed", bytes(16)),
        key=bytes(1216),
        receipt_key=bytes(32),
        epoch=1,
        lifetime=60,
        issued_at=int(AT.timestamp()),
        at_most_once=True,
        content={"model": bytes(32)},
        max_body=1 << 20,
        max_session=60,
    ).encode()
    request = fetch.Request("https://vendor.example/")
    found["cache"]["entry"] = cache._encode(  # noqa: SLF001
        request, fetch.Answer(b"document"), expires=AT + timedelta(hours=1), fetched=AT
    )
    claims = {
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "iat": 1,
        "ear.verifier-id": {"developer": "seed", "build": "1"},
        "submods": {"x": {"ear.status": "affirming", "ear.trustworthiness-vector": {"hardware": 2}}},
    }
    found["ear"]["json"] = json.dumps(claims).encode()
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (
            {"alg": "ES256", "typ": "JWT"},
            claims | {"iss": "seed", "exp": 2, "eat_nonce": "AAAAAAAAAAA"},
        )
    )
    found["token"]["ear"] = header + b"." + body + b"." + base64.urlsafe_b64encode(bytes(64)).rstrip(b"=")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> None:
    """Write the corpus, and say which seeds their targets refuse."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    for target, made in sorted(seeds().items()):
        for name, data in sorted(made.items()):
            path = CORPUS / target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            try:
                TARGETS[target].run(data)
            except ConfideError as error:
                if (
                    not name.startswith("refused") and target != "verify"
                ):  # Whose roots are those of the last time.
                    sys.stderr.write(f"{target}/{name}: {error.code} {error.message}\n")


if __name__ == "__main__":
    main()
