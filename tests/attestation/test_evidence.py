# SPDX-License-Identifier: Apache-2.0
"""The bundle: a CMW collection with one encoding, and nothing in it that has no place."""

from __future__ import annotations

import dataclasses
from typing import Any

import cbor2
import pytest

from confide.attestation.binding import NonceProof
from confide.attestation.evidence import (
    COLLECTION_TYPE,
    MAX_BUNDLE,
    Endorsements,
    Evidence,
    EvidencePart,
    is_bundle,
)
from confide.errors import MalformedError
from confide.wire import cbor
from support import bundles

FULL = Evidence(
    platform=EvidencePart("snp", b"report"),
    devices=(EvidencePart("nvidia", b"gpu 0"), EvidencePart("nvidia", b"gpu 1")),
    key_material=b"key material",
    manifest=b"manifest",
    proof=NonceProof(1, 0, ()),
    endorsements=Endorsements(
        (b"certificate 0", b"certificate 1"), (b"crl",), (EvidencePart("intel-tcb", b"{}"),)
    ),
)
SMALL = Evidence(EvidencePart("snp", b"report"))


@pytest.mark.parametrize("evidence", [FULL, SMALL, bundles.fresh(bytes(32))])
def test_what_is_encoded_is_decoded(evidence: Evidence) -> None:
    assert Evidence.decode(evidence.encode()) == evidence
    assert is_bundle(evidence.encode())


def test_a_bundle_is_a_cmw_collection_for_others_too() -> None:
    """Read by another CBOR library and compared with what RFC 9999 says of records, collections and indicators."""
    collection = cbor2.loads(FULL.encode())

    assert collection.pop("__cmwc_t") == COLLECTION_TYPE
    assert collection["platform"] == ["application/vnd.confide.snp", b"report", 4]
    assert collection["device-evidence"][1] == ["application/vnd.confide.nvidia", b"gpu 1", 4]
    assert collection["key-material"] == ["application/vnd.confide.key-material", b"key material", 4]
    assert collection["endorsements"]["certificates"][0] == ["application/pkix-cert", b"certificate 0", 2]
    assert collection["endorsements"]["crls"] == {0: ["application/pkix-crl", b"crl", 2]}
    assert set(collection) == {
        "platform",
        "device-evidence",
        "key-material",
        "nonce-proof",
        "manifest",
        "endorsements",
    }


def _tree(evidence: Evidence = FULL) -> dict[str, Any]:
    return cbor.decode(evidence.encode(), what="test", max_size=MAX_BUNDLE)  # type: ignore[no-any-return]


def _with(path: str, value: Any) -> bytes:
    """The full bundle with the item at ``path`` replaced, or removed if ``value`` is None."""
    tree = _tree()
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    place: Any = tree
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return cbor.encode(tree)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_with("__cmwc_t", "1.2.3"), "malformed.unknown_format"),
        (_with("__cmwc_t", None), "malformed.non_canonical"),
        (_with("__cmwc_t", 1), "malformed.non_canonical"),
        (_with("platform", None), "malformed.non_canonical"),
        (_with("platform", b"report"), "malformed.non_canonical"),
        (_with("platform/0", "application/vnd.confide.SNP"), "malformed.unknown_format"),
        (_with("platform/0", "application/vnd.confide.manifest"), "malformed.unknown_format"),
        (_with("platform/0", "text/plain"), "malformed.unknown_format"),
        (_with("platform/0", 30001), "malformed.non_canonical"),
        (_with("platform/1", b""), "malformed.truncated"),
        (_with("platform/1", "text"), "malformed.non_canonical"),
        (_with("platform/1", bytes(65537)), "malformed.limit_exceeded"),
        (_with("platform/2", 2), "malformed.non_canonical"),
        (_with("platform/2", True), "malformed.non_canonical"),
        (_with("platform", ["application/vnd.confide.snp", b"report"]), "malformed.non_canonical"),
        (_with("platform", ["application/vnd.confide.snp", b"report", 4, 0]), "malformed.non_canonical"),
        (_with("device-evidence", {}), "malformed.non_canonical"),
        (_with("device-evidence/0", None), "malformed.non_canonical"),
        (_with("device-evidence/7", ["application/vnd.confide.nvidia", b"x", 4]), "malformed.non_canonical"),
        (
            _with("device-evidence", dict.fromkeys(range(17), FULL.devices[0].data)),
            "malformed.limit_exceeded",
        ),
        (_with("key-material/0", "application/vnd.confide.manifest"), "malformed.unknown_format"),
        (_with("key-material/1", bytes(16385)), "malformed.limit_exceeded"),
        (_with("nonce-proof/1", b"\xa0"), "malformed.non_canonical"),
        (_with("endorsements", {}), "malformed.non_canonical"),
        (_with("endorsements/other", {}), "malformed.non_canonical"),
        (_with("endorsements/crls/0/2", 4), "malformed.non_canonical"),
        (_with("endorsements/certificates/0/0", "application/pkix-crl"), "malformed.unknown_format"),
        (_with("endorsements/certificates/0/1", bytes(16385)), "malformed.limit_exceeded"),
        (_with("extra", 1), "malformed.non_canonical"),
        (b"\xa0", "malformed.non_canonical"),
        (b"\x80", "malformed.non_canonical"),
        (b"", "malformed.truncated"),
        (bytes(MAX_BUNDLE + 1), "malformed.limit_exceeded"),
        (FULL.encode() + b"\0", "malformed.trailing_data"),
        (FULL.encode() + FULL.encode(), "malformed.trailing_data"),
    ],
)
def test_another_form_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Evidence.decode(data)

    assert caught.value.code == code


def test_ev_01_a_bundle_cut_at_any_byte_is_refused() -> None:
    data = FULL.encode()

    for length in range(len(data)):
        with pytest.raises(MalformedError):
            Evidence.decode(data[:length])


@pytest.mark.parametrize("extra", [1, 16, 65536])
def test_ev_02_bytes_after_a_bundle_are_refused(extra: int) -> None:
    with pytest.raises(MalformedError) as caught:
        Evidence.decode(FULL.encode() + bytes(extra))

    assert caught.value.code == "malformed.trailing_data"


def test_ev_23_a_duplicate_label_is_refused() -> None:
    data = SMALL.encode()
    label = cbor.encode("platform")
    record = data[data.index(label) :]
    doubled = bytes((data[0] + 1,)) + data[1:] + record

    with pytest.raises(MalformedError) as caught:
        Evidence.decode(doubled)
    assert caught.value.code == "malformed.non_canonical"


@pytest.mark.parametrize(
    "change",
    [
        {"platform": EvidencePart("snp", bytes(65537))},
        {"platform": EvidencePart("SNP", b"x")},
        {"platform": EvidencePart("snp", b"")},
        {"devices": (EvidencePart("nvidia", b"x"),) * 17},
        {"manifest": bytes(192 * 1024 + 1)},
        {"endorsements": Endorsements((b"x",) * 33)},
        {"proof": NonceProof(0, 0, ())},
    ],
)
def test_what_could_not_be_read_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(SMALL, **change).encode()


def test_merging_endorsements_keeps_each_document_once_and_in_order() -> None:
    one = Endorsements((b"a", b"b"), (b"x",))
    other = Endorsements((b"b", b"c"), (b"x", b"y"), (EvidencePart("doc", b"d"),))

    merged = one.merge(other)

    assert merged == Endorsements((b"a", b"b", b"c"), (b"x", b"y"), (EvidencePart("doc", b"d"),))
    assert one.merge(None) is one
