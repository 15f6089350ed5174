# SPDX-License-Identifier: Apache-2.0
"""Reading certificates: `cryptography` reads the same ones, openssl's habits are refused."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto import x509
from confide.errors import MalformedError
from confide.wire import der
from support import pki
from support.der_bytes import sequence, signed, tagged
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CHAIN = pki.chain(
    leaf={"extensions": {"1.3.6.1.4.1.3704.1.1": x509.Extension(critical=False, value=b"\x02\x01\x00")}}
)
LEAF = CHAIN.leaf


def rebuilt(change: Callable[[list[bytes]], Sequence[bytes]]) -> bytes:
    """The leaf with its parts (version, serial, algorithm, issuer, validity, subject, key, extensions) changed, signed anew."""
    top = der.decode(LEAF.der, what="certificate", max_size=1 << 14).children()
    tbs = sequence(*change([part.encoded for part in top[0].children()]))
    return signed(tbs, top[1].encoded, pki.key("intermediate"))


def with_part(index: int, encoded: bytes) -> bytes:
    return rebuilt(lambda parts: [*parts[:index], encoded, *parts[index + 1 :]])


def name(text: bytes, tag: int = 0x0C) -> bytes:
    return tagged(0x30, tagged(0x31, tagged(0x30, bytes.fromhex("0603550403") + tagged(tag, text))))


def extensions(*items: bytes) -> bytes:
    return tagged(0xA3, tagged(0x30, b"".join(items)))


def extension(oid: str, value: bytes, *middle: bytes) -> bytes:
    return tagged(0x30, bytes.fromhex(oid) + b"".join(middle) + tagged(4, value))


def times(before: bytes, after: bytes) -> bytes:
    return tagged(0x30, before + after)


def utc(text: str) -> bytes:
    return tagged(0x17, text.encode())


def generalized(text: str) -> bytes:
    return tagged(0x18, text.encode())


SOUND = times(utc("250101000000Z"), utc("351231235959Z"))
OID = "06032a0304"
KEY_USAGE, CONSTRAINTS = "0603551d0f", "0603551d13"


def test_a_rebuilt_certificate_passes() -> None:
    """So that the refusals below are due to what each changes, and not to the rebuilding."""
    same = x509.Certificate.from_der(rebuilt(lambda parts: parts))

    assert same.subject == "CN=Example Leaf"
    assert CHAIN.verify(leaf=same)
    assert CHAIN.verify(leaf=x509.Certificate.from_der(with_part(4, SOUND)))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_fields_are_those_that_cryptography_reads(shared: Path) -> None:
    files = [*(shared / "evidence" / "roots").iterdir(), *(shared / "evidence" / "sev-snp").glob("*.der")]
    assert len(files) > 20
    # Warnings of the oracle: AMD numbers its VCEKs zero, and Google's names are longer than the library likes.
    for file in files:
        for ours in x509.parse_certificates(file.read_bytes()):
            theirs = library.load_der_x509_certificate(ours.der)
            assert ours.serial == theirs.serial_number
            assert ours.not_before == theirs.not_valid_before_utc
            assert ours.not_after == theirs.not_valid_after_utc
            assert ours.signed.tbs == theirs.tbs_certificate_bytes
            assert ours.signed.signature == theirs.signature
            assert ours.subject_der == theirs.subject.public_bytes()
            assert ours.issuer_der == theirs.issuer.public_bytes()
            assert ours.public_key_der == theirs.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            assert ours.spki_sha256 == hashlib.sha256(ours.public_key_der).digest()
            assert {oid: e.critical for oid, e in ours.extensions.items()} == {
                e.oid.dotted_string: e.critical for e in theirs.extensions
            }
            for oid, found in ours.extensions.items():
                other = theirs.extensions.get_extension_for_oid(library.ObjectIdentifier(oid)).value
                if isinstance(other, library.UnrecognizedExtension):
                    assert found.value == other.value
                if isinstance(other, library.BasicConstraints):
                    assert (ours.is_ca, ours.path_length) == (other.ca, other.path_length)
                if isinstance(other, library.KeyUsage):
                    assert ours.key_usage is not None
                    assert ("digital_signature" in ours.key_usage) == other.digital_signature
                    assert ("key_cert_sign" in ours.key_usage) == other.key_cert_sign
                    assert ("crl_sign" in ours.key_usage) == other.crl_sign


def test_extensions_are_given_raw_and_cannot_be_changed() -> None:
    assert LEAF.extensions["1.3.6.1.4.1.3704.1.1"] == x509.Extension(critical=False, value=b"\x02\x01\x00")
    with pytest.raises(TypeError):
        LEAF.extensions["1.2.3"] = x509.Extension(critical=False, value=b"")  # type: ignore[index]


EV_22: dict[str, Callable[[], bytes]] = {
    "indefinite length": lambda: b"\x30\x80" + LEAF.der[4:] + b"\0\0",
    "length in a longer form": lambda: b"\x30\x83\x00" + LEAF.der[2:],
    "negative serial": lambda: with_part(1, b"\x02\x01\xff"),
    "serial with a leading zero": lambda: with_part(1, b"\x02\x02\x00\x01"),
    "serial of 22 bytes": lambda: with_part(1, tagged(2, b"\x01" + bytes(21))),
    "serial of 10,000 bytes": lambda: with_part(1, tagged(2, b"\x01" + bytes(9_999))),
    "serial of another type": lambda: with_part(1, b"\x04\x01\x01"),
    "version 1": lambda: rebuilt(lambda parts: parts[1:7]),
    "version 2": lambda: with_part(0, bytes.fromhex("a003020101")),
    "version 4": lambda: with_part(0, bytes.fromhex("a003020103")),
    "version that is an enumerated": lambda: with_part(0, bytes.fromhex("a0030a0102")),
    "printable string with an at sign": lambda: with_part(5, name(b"a@b", 19)),
    "two versions": lambda: with_part(0, bytes.fromhex("a006020102020102")),
    "another algorithm inside": lambda: with_part(2, bytes.fromhex("300a06082a8648ce3d040302")),
    "NUL in the common name": lambda: with_part(5, name(b"good\0.evil")),
    "escape sequence in the common name": lambda: with_part(5, name(b"\x1b[2J")),
    "newline in the issuer": lambda: with_part(3, name(b"a\nb")),
    "right-to-left override in the common name": lambda: with_part(5, name("a\u202eb".encode())),
    "name that is not UTF-8": lambda: with_part(5, name(b"\xff")),
    "printable string that is not ASCII": lambda: with_part(5, name(b"\xe9", 19)),
    "name of another type": lambda: with_part(5, name(b"\x01", 0x02)),
    "UTCTime without seconds": lambda: with_part(4, times(utc("2501010000Z"), utc("351231235959Z"))),
    "month 13": lambda: with_part(4, times(utc("251301000000Z"), utc("351231235959Z"))),
    "30 February": lambda: with_part(4, times(utc("250230000000Z"), utc("351231235959Z"))),
    "second 60": lambda: with_part(4, times(utc("250101000060Z"), utc("351231235959Z"))),
    "GeneralizedTime before 2050": lambda: with_part(
        4, times(utc("250101000000Z"), generalized("20491231235959Z"))
    ),
    "one time": lambda: with_part(4, tagged(0x30, utc("250101000000Z"))),
    "three times": lambda: with_part(
        4, tagged(0x30, utc("250101000000Z") + utc("351231235959Z") + utc("351231235959Z"))
    ),
    "times that are text": lambda: with_part(4, times(tagged(0x0C, b"250101000000Z"), utc("351231235959Z"))),
    "the same extension twice": lambda: with_part(7, extensions(extension(OID, b"1"), extension(OID, b"2"))),
    "no extension in the list": lambda: with_part(7, extensions()),
    "critical spelled as false": lambda: with_part(7, extensions(extension(OID, b"1", b"\x01\x01\x00"))),
    "critical spelled as 1": lambda: with_part(7, extensions(extension(OID, b"1", b"\x01\x01\x01"))),
    "extension of four parts": lambda: with_part(
        7, extensions(extension(OID, b"1", b"\x01\x01\xff", b"\x05\x00"))
    ),
    "key usage without bits": lambda: with_part(7, extensions(extension(KEY_USAGE, b"\x03\x01\x00"))),
    "key usage with bits after its end": lambda: with_part(
        7, extensions(extension(KEY_USAGE, b"\x03\x02\x07\x81"))
    ),
    "key usage of 17 bits": lambda: with_part(
        7, extensions(extension(KEY_USAGE, b"\x03\x04\x07\x80\x00\x80"))
    ),
    "key usage that is a number": lambda: with_part(7, extensions(extension(KEY_USAGE, b"\x02\x01\x01"))),
    "path length without a CA": lambda: with_part(
        7, extensions(extension(CONSTRAINTS, bytes.fromhex("3003020100")))
    ),
    "negative path length": lambda: with_part(
        7, extensions(extension(CONSTRAINTS, bytes.fromhex("30060101ff0201ff")))
    ),
    "CA spelled as false": lambda: with_part(
        7, extensions(extension(CONSTRAINTS, bytes.fromhex("3003010100")))
    ),
    "constraints with more": lambda: with_part(
        7, extensions(extension(CONSTRAINTS, bytes.fromhex("30080101ff0201000500")))
    ),
    "bytes after the constraints": lambda: with_part(
        7, extensions(extension(CONSTRAINTS, bytes.fromhex("300000")))
    ),
    "unique identifier": lambda: rebuilt(lambda parts: [*parts[:7], bytes.fromhex("81020000"), parts[7]]),
    "bytes after the end": lambda: LEAF.der + b"\0",
    "signature with unused bits": lambda: unused_bits(),  # noqa: PLW0108 - defined below
    "four parts": lambda: tagged(0x30, LEAF.der[4:] + b"\x05\x00"),
}


def unused_bits() -> bytes:
    top = der.decode(LEAF.der, what="certificate", max_size=1 << 14).children()
    return tagged(
        0x30, top[0].encoded + top[1].encoded + tagged(3, b"\x04" + LEAF.signed.signature[:-1] + b"\xf0")
    )


@pytest.mark.parametrize("make", EV_22.values(), ids=EV_22.keys())
def test_ev_22_certificates_that_der_and_rfc_5280_do_not_allow(make: Callable[[], bytes]) -> None:
    assert code_of(x509.Certificate.from_der, make()).startswith("malformed.")


def test_ev_22_a_certificate_of_ten_megabytes_is_refused_by_its_size() -> None:
    assert code_of(x509.Certificate.from_der, bytes(10_000_000)) == "malformed.limit_exceeded"


def test_times_are_read_by_the_rule_of_rfc_5280() -> None:
    def read(before: bytes, after: bytes) -> tuple[datetime, datetime]:
        found = x509.Certificate.from_der(with_part(4, times(before, after)))
        return found.not_before, found.not_after

    assert read(utc("500101000000Z"), utc("491231235959Z")) == (
        datetime(1950, 1, 1, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
    )
    assert read(utc("000229000000Z"), generalized("99991231235959Z"))[1].year == 9999


def test_amd_numbers_its_certificates_zero() -> None:
    assert x509.Certificate.from_der(with_part(1, b"\x02\x01\x00")).serial == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    assert only_typed_errors(x509.Certificate.from_der, data) is None
    assert only_typed_errors(x509.Crl.from_bytes, data) is None
    assert only_typed_errors(x509.parse_certificates, data) is None


@given(st.data())
@settings(max_examples=300)
def test_spliced_certificates_raise_nothing_else(draw: st.DataObject) -> None:
    data = bytearray(LEAF.der)
    for _ in range(draw.draw(st.integers(1, 4))):
        start = draw.draw(st.integers(0, len(data)))
        end = draw.draw(st.integers(start, min(len(data), start + 12)))
        data[start:end] = draw.draw(st.binary(max_size=12))
    found = only_typed_errors(x509.Certificate.from_der, bytes(data))

    if found is not None:
        assert found.der == data
        only_typed_errors(CHAIN.verify, leaf=found)
        only_typed_errors(getattr, found, "key_kind")


def pem(data: bytes, label: str = "CERTIFICATE", width: int = 64, end: str = "\n") -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    return (f"-----BEGIN {label}-----{end}" + end.join(lines) + f"{end}-----END {label}-----{end}").encode()


LEAF_PEM, ROOT_PEM = pem(LEAF.der), pem(CHAIN.root.der)


def test_ev_21_the_accepted_forms_of_a_pem_file() -> None:
    both = (LEAF, CHAIN.root)

    assert x509.parse_pem(LEAF_PEM + ROOT_PEM) == both
    assert x509.parse_pem(LEAF_PEM + b"\n\n" + ROOT_PEM + b"\n") == both
    assert x509.parse_pem((LEAF_PEM + ROOT_PEM)[:-1]) == both
    assert x509.parse_pem((LEAF_PEM + ROOT_PEM).replace(b"\n", b"\r\n")) == both
    assert x509.parse_certificates(LEAF_PEM + ROOT_PEM) == both
    assert x509.parse_certificates(LEAF.der) == (LEAF,)


EV_21 = {
    "empty": b"",
    "only a newline": b"\n",
    "junk before": b"junk\n" + LEAF_PEM,
    "junk between": LEAF_PEM + b"junk\n" + ROOT_PEM,
    "junk after": LEAF_PEM + b"junk",
    "comment between": LEAF_PEM + b"# comment\n" + ROOT_PEM,
    "space between": LEAF_PEM + b" \n" + ROOT_PEM,
    "NUL after": LEAF_PEM + b"\0",
    "NUL inside": LEAF_PEM.replace(b"\nMII", b"\nM\0II"),
    "byte-order mark": b"\xef\xbb\xbf" + LEAF_PEM,
    "two types": LEAF_PEM + pem(b"\x30\x00", "X509 CRL"),
    "a private key": pem(b"\x30\x00", "PRIVATE KEY"),
    "a trusted certificate": pem(LEAF.der, "TRUSTED CERTIFICATE"),
    "another type at the end": LEAF_PEM.replace(b"END CERTIFICATE", b"END X509 CRL"),
    "headers": LEAF_PEM.replace(b"-----\nMII", b"-----\nProc-Type: 4,ENCRYPTED\n\nMII"),
    "no end": LEAF_PEM[:-30],
    "empty block": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "spaces before lines": LEAF_PEM.replace(b"\n", b"\n "),
    "four hyphens": LEAF_PEM.replace(b"-----", b"----"),
    "padding inside": LEAF_PEM.replace(b"\nMII", b"\n====\nMII"),
    "base64 with bits after the end": pem(LEAF.der + b"\0").replace(b"A==", b"B=="),
    "bytes after the certificate": pem(LEAF.der + b"\0"),
    "two certificates in a block": pem(LEAF.der + CHAIN.root.der),
    "lower case label": LEAF_PEM.replace(b"CERTIFICATE", b"certificate"),
    "carriage returns only": LEAF_PEM.replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("data", EV_21.values(), ids=EV_21.keys())
def test_ev_21_everything_else_in_a_pem_file_is_refused(data: bytes) -> None:
    assert code_of(x509.parse_pem, data).startswith("malformed.")
    assert code_of(x509.parse_certificates, data).startswith("malformed.")


def test_ev_21_the_number_of_blocks_is_limited() -> None:
    assert len(x509.parse_pem(LEAF_PEM * 64)) == 64
    assert code_of(x509.parse_pem, LEAF_PEM * 65) == "malformed.limit_exceeded"
    assert code_of(x509.parse_pem, b"-" * 10_000_000) == "malformed.limit_exceeded"


@given(st.binary(max_size=60), st.integers(0, 2000))
def test_ev_21_bytes_put_into_a_pem_file_raise_nothing_else(junk: bytes, at: int) -> None:
    try:
        found = x509.parse_pem(LEAF_PEM[:at] + junk + LEAF_PEM[at:])
    except MalformedError:
        return

    assert found == (LEAF,)
