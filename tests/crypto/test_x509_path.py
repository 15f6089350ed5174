# SPDX-License-Identifier: Apache-2.0
"""Each refusal differs in one thing from the chain of `test_the_passing_case`."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.crypto import x509
from confide.crypto.x509_parts import Signed
from confide.errors import NotGenuine
from confide.wire import der
from support import pki
from support.der_bytes import sequence, signed
from support.pki import AT, CA_USAGE, FROM, UNTIL, certificate, chain, key
from support.refusal import code_of

if TYPE_CHECKING:
    from confide.crypto.issue import IssuingKey

SECOND = timedelta(seconds=1)
UNKNOWN = {"1.2.3.4.5": x509.Extension(critical=True, value=b"\x05\x00")}


def test_the_passing_case() -> None:
    good = chain()

    assert good.verify() == (good.leaf, good.intermediate, good.root)
    direct = certificate("leaf", "root")
    assert good.verify(leaf=direct, intermediates=[]) == (direct, good.root)


def test_ev_15_order_repetition_and_strangers_do_not_change_the_path() -> None:
    good = chain()
    stranger = certificate("stranger", "stranger")
    pool = [good.intermediate, good.intermediate, stranger, good.root, good.leaf]

    for order in itertools.permutations(pool):
        assert good.verify(intermediates=list(order)) == (good.leaf, good.intermediate, good.root)
    assert good.verify(roots=[stranger, good.root]) == (good.leaf, good.intermediate, good.root)


def test_ev_15_a_missing_intermediate_is_an_invalid_chain() -> None:
    assert code_of(chain().verify, intermediates=[]) == "not_genuine.chain_invalid"
    assert (
        code_of(chain().verify, intermediates=[certificate("stranger", "root")])
        == "not_genuine.chain_invalid"
    )


def test_ev_15_a_leaf_signed_by_itself_is_not_trusted() -> None:
    lonely = certificate("leaf", "leaf")

    assert code_of(chain().verify, leaf=lonely) == "not_genuine.untrusted_root"
    assert code_of(chain().verify, leaf=lonely, intermediates=[lonely]) == "not_genuine.untrusted_root"


def test_ev_15_a_loop_ends() -> None:
    first, second = certificate("first", "second"), certificate("second", "first")
    leaf = certificate("leaf", "first")

    assert code_of(chain().verify, leaf=leaf, intermediates=[first, second], max_depth=9) == (
        "not_genuine.untrusted_root"
    )


def test_ev_15_a_thousand_certificates_are_refused() -> None:
    good = chain()

    assert code_of(good.verify, intermediates=[good.intermediate] * 1000) == "not_genuine.chain_invalid"


def test_ev_15_the_number_of_intermediates_is_limited() -> None:
    good = chain()
    strangers = [certificate(f"stranger {number}", "root", serial=number) for number in range(1, 33)]

    assert len(good.verify(intermediates=[good.intermediate, *strangers[:31]])) == 3
    assert code_of(good.verify, intermediates=[good.intermediate, *strangers]) == "not_genuine.chain_invalid"


def test_ev_15_candidates_of_one_name_cost_a_bounded_number_of_signatures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty certificates that all carry the same name and key make no exponential search."""
    twins = [certificate("twin", "twin", serial=serial) for serial in range(2, 32)]
    calls: list[bytes] = []
    verify = Signed.verify

    def counted(self: Signed, public_key_der: bytes) -> None:
        calls.append(public_key_der)
        verify(self, public_key_der)

    monkeypatch.setattr(Signed, "verify", counted)

    assert code_of(
        chain().verify, leaf=certificate("leaf", "twin"), intermediates=twins, max_depth=9
    ).startswith("not_genuine.")
    assert 1 < len(calls) <= 64


def test_ev_15_the_depth_is_capped() -> None:
    names = ["root", "a", "b", "c", "d"]
    links = [certificate(lower, upper) for upper, lower in itertools.pairwise(names)]
    leaf = certificate("leaf", "d")
    root = certificate("root", "root")

    assert len(x509.verify_chain(leaf, links, [root], at=AT, max_depth=6)) == 6
    assert code_of(x509.verify_chain, leaf, links, [root], at=AT, max_depth=5) == "not_genuine.chain_invalid"
    assert code_of(x509.verify_chain, leaf, links, [root], at=AT) == "not_genuine.chain_invalid"


@pytest.mark.parametrize(
    ("changes", "leaf"),
    [
        ({"leaf": {"is_ca": True}}, "wrong_usage"),
        ({"leaf": {"key_usage": frozenset({"key_agreement"})}}, "wrong_usage"),
        ({"leaf": {"extensions": UNKNOWN}}, "wrong_usage"),
        ({"intermediate": {"is_ca": False}}, "wrong_usage"),
        ({"intermediate": {"basic_constraints": False}}, "wrong_usage"),
        ({"intermediate": {"key_usage": frozenset({"digital_signature"})}}, "wrong_usage"),
        ({"intermediate": {"key_usage": frozenset({"crl_sign"})}}, "wrong_usage"),
        ({"intermediate": {"key_usage": None}}, "wrong_usage"),
        ({"intermediate": {"extensions": UNKNOWN}}, "wrong_usage"),
        ({"root": {"is_ca": False}}, "wrong_usage"),
        ({"root": {"key_usage": frozenset({"digital_signature"})}}, "wrong_usage"),
        ({"root": {"extensions": UNKNOWN}}, "wrong_usage"),
        ({"root": {"path_length": 0}}, "chain_invalid"),
    ],
)
def test_ev_16_usage_constraints_and_critical_extensions(changes: dict[str, Any], leaf: str) -> None:
    assert code_of(chain(**changes).verify) == f"not_genuine.{leaf}"


def test_ev_16_what_the_rules_allow_passes() -> None:
    assert len(chain(leaf={"key_usage": None}).verify()) == 3
    assert len(chain(root={"path_length": 1}, intermediate={"path_length": 0}).verify()) == 3
    assert len(chain(leaf={"extensions": UNKNOWN}).verify(allowed_critical=frozenset(UNKNOWN))) == 3
    harmless = {"1.2.3.4.5": x509.Extension(critical=False, value=b"\x05\x00")}
    assert len(chain(leaf={"extensions": harmless}).verify()) == 3


def test_ev_16_basic_constraints_that_may_be_ignored_make_no_ca() -> None:
    """RFC 5280, section 4.2.1.9: in a CA's certificate they are critical, so that nobody passes over them."""
    spelled = bytes.fromhex("30030101ff")

    def with_constraints(*, critical: bool) -> pki.Chain:
        raw = {"2.5.29.19": x509.Extension(critical=critical, value=spelled)}
        return chain(intermediate={"basic_constraints": False, "extensions": raw})

    assert len(with_constraints(critical=True).verify()) == 3
    assert code_of(with_constraints(critical=False).verify) == "not_genuine.wrong_usage"


def test_ev_16_name_constraints_are_not_ignored() -> None:
    """They are not understood here, so a CA that carries them (they are critical by rule) issues nothing."""
    constraints = {"2.5.29.30": x509.Extension(critical=True, value=b"\x30\x00")}

    assert code_of(chain(intermediate={"extensions": constraints}).verify) == "not_genuine.wrong_usage"


def test_ev_16_a_leaf_issues_nothing() -> None:
    good = chain()
    forged = certificate("victim", "leaf", is_ca=False, key_usage=None)

    assert code_of(good.verify, leaf=forged, intermediates=[good.intermediate, good.leaf]) == (
        "not_genuine.wrong_usage"
    )


def test_ev_16_a_root_or_an_intermediate_is_no_leaf() -> None:
    good = chain()

    assert code_of(good.verify, leaf=good.root) == "not_genuine.wrong_usage"
    assert code_of(good.verify, leaf=good.intermediate) == "not_genuine.wrong_usage"


def test_ev_17_a_look_alike_of_the_root_is_not_the_root() -> None:
    """The same name, validity and serial number, another key: pinned by bytes, never by name."""
    good = chain()
    twin = certificate("root", "root", signing_key=key("other"), public_key=key("other").public_key_der)
    forged = certificate("intermediate", "root", signing_key=key("other"))
    assert twin.subject_der == good.root.subject_der

    for intermediates in ([forged], [forged, twin], [twin, forged, good.root]):
        assert code_of(good.verify, intermediates=intermediates) == "not_genuine.untrusted_root"
    assert code_of(good.verify, roots=[twin]) == "not_genuine.untrusted_root"


def test_ev_17_the_same_key_in_another_certificate_is_not_the_root() -> None:
    good = chain()
    reissued = certificate("root", "root", serial=999)

    assert code_of(
        good.verify, intermediates=[good.intermediate, reissued], roots=[pki.certificate("r2", "r2")]
    ) == ("not_genuine.untrusted_root")


def test_ev_18_without_roots_nothing_is_verified() -> None:
    assert code_of(chain().verify, roots=[]) == "not_genuine.no_trusted_roots"
    assert code_of(chain().verify, roots=()) == "not_genuine.no_trusted_roots"


@pytest.mark.parametrize("role", ["leaf", "intermediate", "root"])
def test_ev_19_one_second_around_each_bound(role: str) -> None:
    early, late = AT - timedelta(days=7), AT + timedelta(days=7)
    narrow = chain(**{role: {"not_before": early, "not_after": late}})

    assert len(narrow.verify(at=early)) == 3
    assert len(narrow.verify(at=late)) == 3
    assert code_of(narrow.verify, at=early - SECOND) == "not_genuine.not_yet_valid"
    assert code_of(narrow.verify, at=late + SECOND) == "not_genuine.expired"
    assert code_of(chain().verify, at=FROM - SECOND) == "not_genuine.not_yet_valid"
    assert code_of(chain().verify, at=UNTIL + SECOND) == "not_genuine.expired"


def test_ev_19_a_time_without_a_zone_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="aware"):
        chain().verify(at=datetime(2026, 6, 1))  # noqa: DTZ001

    shifted = AT.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+13:00").tzinfo)
    assert len(chain().verify(at=shifted)) == 3


def test_a_signature_that_does_not_verify_is_refused_at_each_link() -> None:
    good = chain()
    by_other = certificate("leaf", "intermediate", signing_key=key("other"))

    assert code_of(good.verify, leaf=by_other) == "not_genuine.bad_signature"


@pytest.mark.parametrize("role", ["leaf", "intermediate"])
def test_every_flipped_byte_of_a_certificate_is_refused(role: str) -> None:
    good = chain()
    original = getattr(good, role).der
    codes = set()
    for index in range(len(original)):
        spoiled = bytearray(original)
        spoiled[index] ^= 0x01

        def attempt(data: bytes = bytes(spoiled)) -> None:
            changed = x509.Certificate.from_der(data)
            good.verify(**({"leaf": changed} if role == "leaf" else {"intermediates": [changed]}))

        codes.add(code_of(attempt))
    assert {code.split(".")[0] for code in codes} == {"malformed", "not_genuine"}


def test_ev_12_weak_keys_and_other_algorithms_in_a_chain_are_refused(rsa_key: IssuingKey) -> None:
    weak = type(rsa_key).generate_rsa(1024)
    rsa_root = {"public_key": rsa_key.public_key_der, "signing_key": rsa_key}
    below = {"signing_key": rsa_key}
    assert len(chain(root=rsa_root, intermediate=below).verify()) == 3

    assert code_of(chain(leaf={"public_key": weak.public_key_der}).verify) == "not_genuine.weak_key"
    weak_root = {"public_key": weak.public_key_der, "signing_key": weak}
    assert code_of(chain(root=weak_root, intermediate={"signing_key": weak}).verify) == "not_genuine.weak_key"
    pkcs1 = chain(root=rsa_root, intermediate=below | {"pkcs1": True})
    assert code_of(pkcs1.verify) == "not_genuine.unsupported_algorithm"
    assert len(pkcs1.verify(signatures=frozenset({"ecdsa", "rsa-pkcs1"}))) == 3
    assert code_of(chain().verify, signatures=frozenset({"rsa-pss"})) == "not_genuine.unsupported_algorithm"


def test_ev_12_sha_1_is_refused() -> None:
    """ecdsa-with-SHA1 (…4.1) in the place of ecdsa-with-SHA384 (…4.3.3), in both of its places."""
    good = chain()
    sha384, sha1 = bytes.fromhex("06082a8648ce3d040303"), bytes.fromhex("06072a8648ce3d0401")
    assert good.leaf.der.count(sha384) == 2
    content = der.decode(good.leaf.signed.tbs, what="tbs", max_size=9999).content
    tbs = sequence(content.replace(b"\x30\x0a" + sha384, b"\x30\x09" + sha1))
    forged = signed(tbs, sequence(sha1), key("intermediate"))

    changed = x509.Certificate.from_der(forged)
    assert code_of(good.verify, leaf=changed) == "not_genuine.unsupported_algorithm"
    every = frozenset({"ecdsa", "rsa-pss", "rsa-pkcs1", "other"})
    assert code_of(good.verify, leaf=changed, signatures=every) == "not_genuine.unsupported_algorithm"


def test_ev_12_a_p256_leaf_says_what_it_is() -> None:
    leaf = certificate("leaf", "intermediate", public_key=key("leaf", "p256").public_key_der)
    r, s = key("leaf", "p256").sign_ecdsa(b"report")

    assert chain().verify(leaf=leaf)[0].key_kind == "p256"
    assert code_of(leaf.verify_signature, b"report", r, s) == "not_genuine.algorithm_mismatch"


def test_a_certificate_verifies_what_its_key_signed() -> None:
    leaf = chain().leaf
    r, s = key("leaf").sign_ecdsa(b"report")

    leaf.verify_signature(b"report", r, s)
    assert code_of(leaf.verify_signature, b"other", r, s) == "not_genuine.bad_signature"


def test_two_ca_certificates_of_one_key_are_both_tried() -> None:
    """An expired cross certificate beside a valid one, in any order, does not hide the valid path."""
    good = chain()
    expired = certificate("intermediate", "root", serial=500, not_after=AT - timedelta(days=1))

    for pool in ([expired, good.intermediate], [good.intermediate, expired]):
        assert good.verify(intermediates=pool) == (good.leaf, good.intermediate, good.root)
    assert code_of(good.verify, intermediates=[expired]) == "not_genuine.expired"


def test_usage_names_cover_the_passing_case() -> None:
    good = chain()

    assert good.intermediate.key_usage == CA_USAGE
    assert good.leaf.key_usage == frozenset({"digital_signature"})
    assert good.root.not_before == FROM.astimezone(UTC)


def test_ev_16_a_key_for_encryption_stands_as_leaf_only_where_one_is_asked_for() -> None:
    ciphers = chain(leaf={"key_usage": frozenset({"key_encipherment"})})
    assert code_of(ciphers.verify) == "not_genuine.wrong_usage"
    asked = x509.verify_chain(
        ciphers.leaf, [ciphers.intermediate], [ciphers.root], at=AT, usage="key_encipherment"
    )
    assert asked == (ciphers.leaf, ciphers.intermediate, ciphers.root)
    signs = chain(leaf={"key_usage": frozenset({"digital_signature"})})
    with pytest.raises(NotGenuine):
        x509.verify_chain(signs.leaf, [signs.intermediate], [signs.root], at=AT, usage="key_encipherment")
