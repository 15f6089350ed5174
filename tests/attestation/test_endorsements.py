# SPDX-License-Identifier: Apache-2.0
"""The file of endorsements: one encoding, told apart from a bundle, and never empty."""

from __future__ import annotations

import cbor2
import pytest

from confide.attestation.evidence import (
    ENDORSEMENTS_TYPE,
    MAX_ENDORSEMENTS,
    Endorsements,
    Evidence,
    EvidencePart,
    is_bundle,
    is_endorsements,
)
from confide.errors import MalformedError
from confide.wire import cbor

FULL = Endorsements(
    (b"certificate 0", b"certificate 1"), (b"crl",), (EvidencePart("intel-collateral", b"{}"),)
)


@pytest.mark.parametrize("endorsements", [FULL, Endorsements((b"x",)), Endorsements(crls=(b"x",))])
def test_what_is_encoded_is_decoded(endorsements: Endorsements) -> None:
    data = endorsements.encode()

    assert Endorsements.decode(data) == endorsements
    assert is_endorsements(data)
    assert not is_bundle(data)


def test_it_is_a_cmw_collection_for_others_too() -> None:
    collection = cbor2.loads(FULL.encode())

    assert collection.pop("__cmwc_t") == ENDORSEMENTS_TYPE
    assert collection == {
        "endorsements": {
            "certificates": {
                0: ["application/pkix-cert", b"certificate 0", 2],
                1: ["application/pkix-cert", b"certificate 1", 2],
            },
            "crls": {0: ["application/pkix-crl", b"crl", 2]},
            "documents": {0: ["application/vnd.confide.intel-collateral", b"{}", 2]},
        }
    }


def test_a_bundle_is_no_file_of_endorsements() -> None:
    bundle = Evidence(EvidencePart("snp", b"report"), endorsements=FULL).encode()

    assert not is_endorsements(bundle)
    with pytest.raises(MalformedError) as caught:
        Endorsements.decode(bundle)
    assert caught.value.code == "malformed.unknown_format"
    with pytest.raises(MalformedError):
        Evidence.decode(FULL.encode())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed.truncated"),
        (FULL.encode() + b"\0", "malformed.trailing_data"),
        (bytes(MAX_ENDORSEMENTS + 1), "malformed.limit_exceeded"),
        (cbor.encode({"__cmwc_t": ENDORSEMENTS_TYPE}), "malformed.non_canonical"),
        (cbor.encode({"__cmwc_t": ENDORSEMENTS_TYPE, "endorsements": {}}), "malformed.non_canonical"),
        (
            cbor.encode({"__cmwc_t": ENDORSEMENTS_TYPE, "endorsements": {"crls": {}}}),
            "malformed.non_canonical",
        ),
        (
            cbor.encode({"__cmwc_t": ENDORSEMENTS_TYPE, "endorsements": {"roots": {0: []}}}),
            "malformed.non_canonical",
        ),
    ],
)
def test_another_form_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Endorsements.decode(data)

    assert caught.value.code == code


def test_nothing_is_not_written() -> None:
    with pytest.raises(MalformedError):
        Endorsements().encode()
    with pytest.raises(MalformedError):
        Endorsements(documents=(EvidencePart("ocsp", bytes(65537)),)).encode()


def test_ev_01_a_file_of_endorsements_cut_at_any_byte_is_refused() -> None:
    data = FULL.encode()

    for length in range(len(data)):
        with pytest.raises(MalformedError):
            Endorsements.decode(data[:length])
