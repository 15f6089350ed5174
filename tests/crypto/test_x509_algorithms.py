# SPDX-License-Identifier: Apache-2.0
"""Which AlgorithmIdentifiers count as which signature; everything else is "other", which no chain accepts."""

from __future__ import annotations

import pytest

from confide.crypto import x509_parts
from support.der_bytes import integer, sequence, tagged
from support.refusal import code_of

NULL = b"\x05\x00"
ECDSA_384 = bytes.fromhex("06082a8648ce3d040303")
ECDSA_SHA1 = bytes.fromhex("06072a8648ce3d0401")
PKCS1_256 = bytes.fromhex("06092a864886f70d01010b")
PKCS1_SHA1 = bytes.fromhex("06092a864886f70d010105")
ED25519 = bytes.fromhex("06032b6570")
PSS = bytes.fromhex("06092a864886f70d01010a")
MGF1 = bytes.fromhex("06092a864886f70d010108")
SHA1 = bytes.fromhex("06052b0e03021a")
SHA256, SHA384, SHA512 = (bytes.fromhex(f"060960864801650304020{n}") for n in (1, 2, 3))


def family(algorithm: bytes) -> tuple[str, str]:
    signed, _, _ = x509_parts.open_signed(
        sequence(sequence(), algorithm, tagged(3, b"\0")), "structure", 9999
    )
    return signed.family, signed.hash_name


def pss(
    digest: bytes = SHA384,
    mask_digest: bytes = SHA384,
    salt: int = 48,
    mask: bytes = MGF1,
    more: bytes = b"",
    *,
    null: bytes = NULL,
) -> bytes:
    """RSASSA-PSS with the parameters of RFC 4055, section 3.1, one by one."""
    return sequence(
        PSS,
        sequence(
            tagged(0xA0, sequence(digest, null)),
            tagged(0xA1, sequence(mask, sequence(mask_digest, null))),
            tagged(0xA2, integer(salt)),
            more,
        ),
    )


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (sequence(ECDSA_384), ("ecdsa", "sha384")),
        (sequence(PKCS1_256, NULL), ("rsa-pkcs1", "sha256")),
        (sequence(ED25519), ("ed25519", "")),
        (pss(), ("rsa-pss", "sha384")),
        (pss(null=b""), ("rsa-pss", "sha384")),
        (pss(more=tagged(0xA3, integer(1))), ("rsa-pss", "sha384")),
        (pss(SHA256, SHA256, 32), ("rsa-pss", "sha256")),
        (pss(SHA512, SHA512, 64), ("rsa-pss", "sha512")),
    ],
)
def test_the_accepted_identifiers(algorithm: bytes, expected: tuple[str, str]) -> None:
    assert family(algorithm) == expected


OTHERS = {
    "ecdsa with parameters": sequence(ECDSA_384, NULL),
    "ecdsa with SHA-1": sequence(ECDSA_SHA1),
    "pkcs1 without parameters": sequence(PKCS1_256),
    "pkcs1 with other parameters": sequence(PKCS1_256, sequence()),
    "pkcs1 with more": sequence(PKCS1_256, NULL, NULL),
    "pkcs1 with SHA-1": sequence(PKCS1_SHA1, NULL),
    "ed25519 with parameters": sequence(ED25519, NULL),
    "a hash": sequence(SHA384, NULL),
    "pss without parameters": sequence(PSS),
    "pss with more": sequence(PSS, sequence(), NULL),
    "pss with defaults, which are SHA-1": sequence(PSS, sequence()),
    "pss with SHA-1": pss(SHA1, SHA1, 20),
    "pss with SHA-1 in the mask": pss(mask_digest=SHA1),
    "pss with another hash in the mask": pss(mask_digest=SHA256),
    "pss with another mask": pss(mask=PSS),
    "pss with a short salt": pss(salt=47),
    "pss with a long salt": pss(salt=49),
    "pss with no salt": pss(salt=0),
    "pss with the default salt": pss(salt=20),
    "pss with another trailer": pss(more=tagged(0xA3, integer(2))),
    "pss with a fifth parameter": pss(more=tagged(0xA4, integer(1))),
    "pss with two values in the salt": sequence(
        PSS,
        sequence(
            tagged(0xA0, sequence(SHA384, NULL)),
            tagged(0xA1, sequence(MGF1, sequence(SHA384, NULL))),
            tagged(0xA2, integer(48) + integer(48)),
        ),
    ),
    "pss without a mask": sequence(
        PSS, sequence(tagged(0xA0, sequence(SHA384, NULL)), tagged(0xA2, integer(48)))
    ),
    "pss with a mask without a hash": sequence(
        PSS,
        sequence(
            tagged(0xA0, sequence(SHA384, NULL)), tagged(0xA1, sequence(MGF1)), tagged(0xA2, integer(48))
        ),
    ),
    "pss with a hash that has parameters": pss(null=sequence()),
    "pss with a hash that has more": pss(null=NULL + NULL),
    "pss with an empty hash": sequence(
        PSS,
        sequence(
            tagged(0xA0, sequence()),
            tagged(0xA1, sequence(MGF1, sequence(SHA384, NULL))),
            tagged(0xA2, integer(48)),
        ),
    ),
}


@pytest.mark.parametrize("algorithm", OTHERS.values(), ids=OTHERS.keys())
def test_ev_12_every_other_identifier_is_accepted_by_no_chain(algorithm: bytes) -> None:
    assert family(pss()) == ("rsa-pss", "sha384")

    assert family(algorithm) == ("other", "")
    signed, _, _ = x509_parts.open_signed(
        sequence(sequence(), algorithm, tagged(3, b"\0")), "structure", 9999
    )
    assert code_of(signed.verify, b"") == "not_genuine.unsupported_algorithm"


def test_an_algorithm_without_a_name_is_malformed() -> None:
    assert code_of(family, sequence()) == "malformed.non_canonical"
    assert code_of(family, sequence(NULL)) == "malformed.non_canonical"
    assert code_of(family, NULL) == "malformed.non_canonical"
    assert code_of(family, pss(mask=NULL)) == "malformed.non_canonical"


@pytest.mark.parametrize("parts", [[], [sequence()], [sequence(), sequence(ECDSA_384)], [sequence()] * 4])
def test_a_signed_structure_has_three_parts(parts: list[bytes]) -> None:
    assert code_of(x509_parts.open_signed, sequence(*parts), "structure", 9999) == "malformed.unknown_format"
