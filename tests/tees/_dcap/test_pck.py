# SPDX-License-Identifier: Apache-2.0
"""PCK certificates: Intel's extension to the letter, and chains of exactly Intel's shape."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from confide.crypto import x509
from confide.crypto.issue import IssuingKey
from confide.crypto.x509 import Extension
from confide.simulator import dcap as simulator
from confide.tees._dcap import pck
from support import dcap
from support.der_bytes import integer, sequence, tagged

OCTETS = 4


def with_sgx(tee: str, **sgx: Any) -> list[str]:
    return dcap.refused(dcap.changed(tee, sgx=sgx))


def test_the_extension_is_read_whole() -> None:
    made = dcap.platform("tdx")
    read = pck.read_pck(x509.Certificate.from_der(made.certificates["pck"]))

    assert read.components == simulator.COMPONENTS
    assert read.cpusvn == bytes(simulator.COMPONENTS)
    assert (read.pcesvn, read.pceid, read.fmspc) == (11, bytes(2), simulator.FMSPC)
    assert (read.ppid, read.platform_instance_id) == (b"\x11" * 16, b"\x22" * 16)
    assert read.sgx_type == "scalable"


def test_a_processor_without_a_platform_instance_is_read() -> None:
    made = dcap.changed("sgx", ca="processor", sgx={"platform_instance_id": None, "sgx_type": 0})
    details: Any = dcap.accepted(made).details

    assert details.ppid == b"\x11" * 16


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_21_a_part_that_is_there_twice_is_refused(tee: str) -> None:
    twice = simulator.part((4,), tagged(OCTETS, simulator.FMSPC))
    assert with_sgx(tee, extra=(twice,)) == ["malformed.non_canonical"]
    again = simulator.part((2, 1), integer(6))
    assert with_sgx(tee, extra_tcb=(again,)) == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ((1,), integer(5)),
        ((2, 1), tagged(OCTETS, b"\x06")),
        ((2, 17), tagged(OCTETS, b"\x0b")),
        ((2, 18), integer(6)),
        ((3,), tagged(12, b"\x00\x00")),
        ((4,), tagged(3, b"\x00" + simulator.FMSPC)),
        ((5,), integer(1)),
        ((2,), tagged(OCTETS, b"")),
    ],
    ids=str,
)
def test_dcap_21_a_part_of_another_type_is_refused(tee: str, part: tuple[int, ...], value: bytes) -> None:
    assert with_sgx(tee, replace={part: value}) == ["malformed.non_canonical"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("part", "value", "code"),
    [
        ((1,), tagged(OCTETS, bytes(15)), "malformed.length_mismatch"),
        ((3,), tagged(OCTETS, bytes(3)), "malformed.length_mismatch"),
        ((4,), tagged(OCTETS, bytes(5)), "malformed.length_mismatch"),
        ((2, 18), tagged(OCTETS, bytes(17)), "malformed.length_mismatch"),
        ((6,), tagged(OCTETS, bytes(8)), "malformed.length_mismatch"),
        ((2, 1), integer(256), "malformed.limit_exceeded"),
        ((2, 1), b"\x02\x01\xff", "malformed.limit_exceeded"),
        ((2, 17), integer(65536), "malformed.limit_exceeded"),
        ((5,), tagged(10, b"\x03"), "malformed.unknown_format"),
        ((7,), sequence(simulator.part((7, 4), b"\x01\x01\xff")), "malformed.unknown_format"),
    ],
    ids=str,
)
def test_dcap_21_a_part_of_another_length_or_range_is_refused(
    tee: str, part: tuple[int, ...], value: bytes, code: str
) -> None:
    assert with_sgx(tee, replace={part: value}) == [code]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("part", [(1,), (2,), (3,), (4,), (5,), (2, 1), (2, 16), (2, 17), (2, 18)])
def test_dcap_21_a_missing_part_is_refused(tee: str, part: tuple[int, ...]) -> None:
    assert with_sgx(tee, replace={part: None}) == ["malformed.unknown_format"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_21_cpusvn_and_its_components_must_agree(tee: str) -> None:
    for index in range(16):
        other = bytes(svn ^ (place == index) for place, svn in enumerate(simulator.COMPONENTS))
        assert with_sgx(tee, cpusvn=other) == ["malformed.non_canonical"], index


@pytest.mark.parametrize("tee", dcap.TEES)
def test_dcap_21_a_seventeenth_component_and_unknown_parts_are_refused(tee: str) -> None:
    seventeen = {"components": (*simulator.COMPONENTS, 0), "cpusvn": bytes(simulator.COMPONENTS)}
    assert with_sgx(tee, **seventeen) == ["malformed.non_canonical"]  # It stands in PCESVN's place.
    assert with_sgx(tee, extra_tcb=(simulator.part((2, 19), integer(0)),)) == ["malformed.unknown_format"]
    assert with_sgx(tee, extra=(simulator.part((8,), integer(0)),)) == ["malformed.unknown_format"]
    assert with_sgx(tee, extra=(simulator.part((2, 1), integer(0)),)) == ["malformed.unknown_format"]
    assert with_sgx(tee, extra=(sequence(integer(1), integer(2), integer(3)),)) == ["malformed.non_canonical"]
    two_values = tagged(OCTETS, bytes(2)) * 2
    assert with_sgx(tee, replace={(3,): two_values}) == ["malformed.non_canonical"]


def without_extension(tee: str) -> list[str]:
    return dcap.refused(dcap.changed(tee, certificates={"pck": {"extensions": {}}}))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_chain_without_a_pck_certificate_is_refused(tee: str) -> None:
    made = dcap.platform(tee)
    assert without_extension(tee) == ["malformed.unknown_format"]
    assert dcap.refused(made, chain=made.chain[1:]) == ["malformed.unknown_format"]
    assert dcap.refused(made, chain=(made.chain[0], *made.chain)) == ["malformed.unknown_format"]


def reissued(tee: str, role: str, **arguments: Any) -> list[str]:
    return dcap.refused(dcap.changed(tee, certificates={role: arguments}))


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_15_the_chain_may_come_in_any_order_and_repeat_its_cas(tee: str) -> None:
    made = dcap.platform(tee)
    leaf, authority, root = made.chain
    for order in (
        (root, authority, leaf),
        (authority, leaf, root),
        (leaf, authority),
        (leaf, root, root, authority),
    ):
        assert dcap.accepted(made, chain=order).tee == tee


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_15_a_missing_ca_an_extra_certificate_and_a_long_chain_are_refused(tee: str) -> None:
    made = dcap.platform(tee)
    leaf, authority, root = made.chain
    assert dcap.accepted(made, chain=(leaf, root)).tee == tee  # The CRL's issuer chain has the CA, too.
    without = {"document": {"pck_crl_issuer_chain": simulator.pem(root).decode()}}
    assert dcap.refused(made, chain=(leaf, root), collateral=without)[0] == "not_genuine.chain_invalid"
    assert dcap.refused(made, chain=(*made.chain, made.certificates["signer"])) == [
        "not_genuine.chain_invalid"
    ]
    stranger = dcap.platform(tee, seed=2).certificates["root"]
    assert dcap.refused(made, chain=(leaf, authority, stranger)) == ["not_genuine.chain_invalid"]
    assert dcap.accepted(made, chain=(leaf, *(authority,) * 7)).tee == tee
    assert dcap.refused(made, chain=(leaf, *(authority,) * 8)) == ["malformed.limit_exceeded"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_another_certificate_of_the_roots_own_key_may_stand_in_the_quote(tee: str) -> None:
    """Intel has issued its root twice; the quotes of 2020 hold the other one. Its signature must be the root's."""
    made = dcap.platform(tee)
    twin = dcap.changed(tee, certificates={"root": {"serial": 99}}).certificates["root"]
    assert twin != made.certificates["root"]

    assert dcap.accepted(made, chain=(*made.chain[:2], twin)).tee == tee
    spoiled = twin[:-1] + bytes((twin[-1] ^ 1,))
    assert dcap.refused(made, chain=(*made.chain[:2], spoiled))[0] == "not_genuine.bad_signature"


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_17_a_root_that_only_looks_like_the_pinned_one_is_refused(tee: str) -> None:
    found = dcap.refused(dcap.platform(tee, seed=2), anchors=(dcap.platform(tee).anchor,))

    assert set(found) == {"not_genuine.untrusted_root"}


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_18_without_a_root_nothing_is_genuine(tee: str) -> None:
    made = dcap.platform(tee)
    other = dcap.platform("sgx" if tee == "tdx" else "tdx")
    data, endorsements = made.evidence(dcap.REPORT_DATA)

    assert dcap.judged(tee, data, endorsements, ()) == ["not_genuine.no_trusted_roots"]
    assert dcap.judged(tee, data, endorsements, (other.anchor,)) == ["not_genuine.no_trusted_roots"]


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize("role", ["pck", "platform", "root", "signer"])
def test_ev_19_certificates_count_from_their_first_second_to_their_last(tee: str, role: str) -> None:
    second = timedelta(seconds=1)
    for early, late, code in (
        (dcap.AT, dcap.AT, "accepted"),
        (dcap.AT + second, dcap.AT + 2 * second, "not_genuine.not_yet_valid"),
        (dcap.AT - 2 * second, dcap.AT - second, "not_genuine.expired"),
    ):
        made = dcap.changed(tee, certificates={role: {"not_before": early, "not_after": late}})
        assert dcap.refused(made)[0] == code


@pytest.mark.parametrize("tee", dcap.TEES)
@pytest.mark.parametrize(
    ("role", "arguments", "code"),
    [
        ("pck", {"is_ca": True, "key_usage": frozenset({"key_cert_sign"})}, "not_genuine.wrong_usage"),
        ("pck", {"key_usage": frozenset({"key_agreement"})}, "not_genuine.wrong_usage"),
        ("platform", {"is_ca": False, "path_length": None}, "not_genuine.wrong_usage"),
        ("platform", {"key_usage": frozenset({"crl_sign"})}, "not_genuine.wrong_usage"),
        ("root", {"path_length": 0}, "not_genuine.chain_invalid"),
    ],
)
def test_ev_16_certificates_serve_their_purpose_only(
    tee: str, role: str, arguments: dict[str, Any], code: str
) -> None:
    assert reissued(tee, role, **arguments)[0] == code


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_16_an_unknown_critical_extension_is_refused(tee: str) -> None:
    extensions = {
        pck.EXTENSION: simulator.extension(),
        "1.2.3.4": Extension(critical=True, value=b"\x05\x00"),
    }
    assert reissued(tee, "pck", extensions=extensions) == ["not_genuine.wrong_usage"]


@pytest.mark.parametrize("tee", dcap.TEES)
def test_ev_12_keys_on_another_curve_are_refused(tee: str) -> None:
    key = IssuingKey.from_scalar(5, curve="p384")

    assert "not_genuine.algorithm_mismatch" in reissued(tee, "pck", public_key=key.public_key_der)
    found = dcap.refused(
        dcap.changed(tee, keys={"platform": key}),
    )
    assert found[0] == "not_genuine.algorithm_mismatch"


@pytest.mark.parametrize("tee", dcap.TEES)
def test_a_certificate_with_a_name_of_another_role_is_refused(tee: str) -> None:
    """The root certifies PCK CAs and the TCB signer alike; only their names tell them apart."""
    named = (("CN", "Intel SGX PCK Something"), ("O", "confide simulated device"), ("OU", "SIMULATED"))

    assert reissued(tee, "pck", subject=named) == ["not_genuine.wrong_usage"]
    assert reissued(tee, "platform", subject=simulator.name("signer"))[0].startswith("not_genuine.")
    made = dcap.changed(
        tee,
        certificates={"platform": {"subject": named}, "pck": {"issuer": named}},
    )
    crl = made.crl("platform", issuer=named).hex()
    assert dcap.refused(made, collateral={"document": {"pck_crl": crl}}) == ["not_genuine.wrong_usage"]
