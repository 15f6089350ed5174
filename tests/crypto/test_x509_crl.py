# SPDX-License-Identifier: Apache-2.0
"""Each refusal differs in one thing from the list of `test_ev_20_the_passing_case`."""

from __future__ import annotations

import base64
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto import x509
from confide.crypto.issue import IssuingKey, issue_crl
from confide.wire import der
from support.der_bytes import sequence, signed, tagged
from support.pki import AT, Chain, certificate, chain, crl, key
from support.refusal import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = timedelta(seconds=1)


def check(found: x509.Crl, links: Chain | None = None, **changes: Any) -> None:
    links = links or chain()
    arguments: dict[str, Any] = {"certificate": links.leaf, "issuer": links.intermediate, "at": AT} | changes
    found.check(arguments.pop("certificate"), **arguments)


def test_ev_20_the_passing_case() -> None:
    check(crl())
    check(crl(revoked=[chain().leaf.serial + 1]))
    check(crl("root"), certificate=chain().intermediate, issuer=chain().root)


def test_ev_20_a_revoked_leaf_and_a_revoked_intermediate_are_refused() -> None:
    links = chain()

    assert code_of(check, crl(revoked=[5, links.leaf.serial, 7])) == "not_genuine.revoked"
    assert code_of(
        check,
        crl("root", revoked=[links.intermediate.serial]),
        certificate=links.intermediate,
        issuer=links.root,
    ) == ("not_genuine.revoked")


def test_ev_20_a_serial_number_is_revoked_only_by_its_own_issuer() -> None:
    """The same number under another issuer is another certificate."""
    links = chain()
    other = crl("root", revoked=[links.leaf.serial])

    assert code_of(check, other, issuer=links.root) == "endorsements_missing.crl"
    assert code_of(check, other) == "endorsements_missing.crl"


def test_ev_20_a_list_signed_by_the_wrong_key_is_refused() -> None:
    assert code_of(check, crl(signing_key=key("other"))) == "not_genuine.bad_signature"
    twin = certificate("intermediate", "root", public_key=key("other").public_key_der)
    assert code_of(check, crl(), issuer=twin) == "not_genuine.bad_signature"


def test_ev_20_an_issuer_that_may_not_sign_lists_is_refused() -> None:
    links = chain(intermediate={"key_usage": frozenset({"key_cert_sign"})})

    assert code_of(check, crl(), links) == "not_genuine.wrong_usage"


def test_ev_20_one_second_around_each_bound() -> None:
    found = crl()
    assert found.next_update is not None

    check(found, at=found.this_update)
    check(found, at=found.next_update)
    assert code_of(check, found, at=found.this_update - SECOND) == "endorsements_missing.crl_expired"
    assert code_of(check, found, at=found.next_update + SECOND) == "endorsements_missing.crl_expired"


@pytest.mark.parametrize("oid", ["2.5.29.27", "2.5.29.28", "1.2.3.4"])
def test_ev_20_a_list_of_a_part_of_the_certificates_is_refused(oid: str) -> None:
    """Delta lists and lists of one distribution point say so in critical extensions (RFC 5280, section 5.2)."""
    partial = crl(extensions={oid: x509.Extension(critical=True, value=b"\x02\x01\x01")})
    harmless = crl(extensions={"2.5.29.20": x509.Extension(critical=False, value=b"\x02\x01\x01")})

    check(harmless)
    assert code_of(check, partial) == "endorsements_missing.crl"


def test_a_list_signed_with_rsa_pss_is_checked(rsa_key: IssuingKey) -> None:
    issuer = certificate("intermediate", "root", public_key=rsa_key.public_key_der)

    check(crl(signing_key=rsa_key), issuer=issuer)
    assert code_of(check, crl(signing_key=rsa_key)) == "not_genuine.algorithm_mismatch"


def test_every_flipped_byte_is_refused() -> None:
    original = crl(revoked=[5]).der
    codes = set()
    for index in range(len(original)):
        spoiled = bytearray(original)
        spoiled[index] ^= 0x01

        def attempt(data: bytes = bytes(spoiled)) -> None:
            check(x509.Crl.from_bytes(data))

        codes.add(code_of(attempt).split(".")[0])

    assert codes == {"malformed", "not_genuine", "endorsements_missing"}


def rebuilt(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """A list with its parts (version, algorithm, issuer, this update, next update, entries) changed, signed anew."""
    top = der.decode(crl(revoked=[5, 6]).der, what="CRL", max_size=1 << 14).children()
    parts = change([part.encoded for part in top[0].children()])
    return signed(sequence(*parts), top[1].encoded, key("intermediate"))


def with_entries(entries: str) -> bytes:
    raw = bytes.fromhex(entries)
    return rebuilt(lambda parts: [*parts[:5], b"\x30" + bytes([len(raw)]) + raw])


def entry(serial: str, *more: str) -> str:
    content = serial + "170d" + b"260101000000Z".hex() + "".join(more)
    return f"30{len(content) // 2:02x}" + content


def test_a_rebuilt_list_passes() -> None:
    check(x509.Crl.from_bytes(rebuilt(lambda parts: parts)))
    assert x509.Crl.from_bytes(with_entries(entry("020107") + entry("020108"))).revoked == {7, 8}
    reason = "300c" + "300a" + "0603551d15" + "0403" + "0a0101"
    assert x509.Crl.from_bytes(with_entries(entry("020107", reason))).revoked == {7}
    assert x509.Crl.from_bytes(rebuilt(lambda parts: parts[:5])).revoked == frozenset()


def test_ev_20_a_list_without_a_next_update_never_counts_as_current() -> None:
    found = x509.Crl.from_bytes(rebuilt(lambda parts: [*parts[:4], *parts[5:]]))

    assert found.next_update is None
    assert code_of(check, found) == "endorsements_missing.crl_expired"


def test_ev_20_entries_of_another_issuer_are_not_read_past() -> None:
    """An indirect list names the issuer in a critical extension of the entry; this one is refused, not misread."""
    other_issuer = "300f" + "300d" + "0603551d1d" + "0101ff" + "0403" + "300100"[:6]

    assert code_of(x509.Crl.from_bytes, with_entries(entry("020107", other_issuer))).startswith("malformed.")


@pytest.mark.parametrize(
    "make",
    [
        lambda: rebuilt(lambda parts: parts[1:]),
        lambda: rebuilt(lambda parts: [b"\x02\x01\x00", *parts[1:]]),
        lambda: rebuilt(lambda parts: [*parts[:3], b"\x0c\x01a", *parts[4:]]),
        lambda: rebuilt(lambda parts: [*parts, b"\x05\x00"]),
        lambda: rebuilt(lambda parts: parts[:3]),
        lambda: rebuilt(lambda parts: parts[:2]),
        lambda: with_entries(entry("0201ff")),
        lambda: with_entries("3003020105"),
        lambda: with_entries("0500"),
        lambda: crl().der + b"\0",
        lambda: crl().der[:-1],
        lambda: b"",
        lambda: chain().leaf.der,
        lambda: bytes(3_000_000),
    ],
)
def test_lists_of_another_form_are_refused(make: Callable[[], bytes]) -> None:
    assert code_of(x509.Crl.from_bytes, make()).startswith("malformed.")


def test_a_list_is_read_from_pem_as_well() -> None:
    data = crl().der
    text = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(data) + b"-----END X509 CRL-----\n"

    assert x509.Crl.from_bytes(text) == x509.Crl.from_bytes(data)
    assert code_of(x509.Crl.from_bytes, text * 2) == "malformed.limit_exceeded"
    assert (
        code_of(x509.Crl.from_bytes, text.replace(b"X509 CRL", b"CERTIFICATE")) == "malformed.non_canonical"
    )
    assert code_of(x509.Crl.from_bytes, b"-") == "malformed.non_canonical"


def test_a_time_without_a_zone_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="aware"):
        check(crl(), at=AT.replace(tzinfo=None))


def test_a_list_of_a_million_elements_is_refused_early() -> None:
    bomb = rebuilt(lambda parts: [*parts[:5], tagged(0x30, b"\x05\x00" * 1_000_000)])
    tracemalloc.start()
    try:
        assert code_of(x509.Crl.from_bytes, bomb) == "malformed.limit_exceeded"
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_long_list_is_read_in_reasonable_time() -> None:
    found = x509.Crl.from_bytes(
        issue_crl(
            issuer="Example Intermediate",
            signing_key=key("intermediate"),
            this_update=AT,
            next_update=AT + SECOND,
            revoked=range(1, 3000),
        )
    )

    assert found.revoked == frozenset(range(1, 3000))
