# SPDX-License-Identifier: Apache-2.0
"""Attacks on SEV-SNP evidence. Each starts from a case that passes, changes one thing, and names the code of the refusal."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.attestation.evidence import Evidence, EvidencePart
from confide.crypto.issue import IssuingKey, issue
from confide.crypto.x509 import Extension
from confide.errors import ConfideError, EndorsementsMissing, MalformedError, NotAcceptable, NotGenuine
from confide.tees import formats
from confide.tees.snp import authenticate, endorse, wire
from support import snp

# Reserved ranges by the specification's offsets, [first, last): of all versions, and those that only some versions have.
RESERVED = {
    2: [(0x4C, 0x50), (0x188, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0), (0x330, 0x4A0)],
    3: [(0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0), (0x330, 0x4A0)],
    4: [(0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0), (0x330, 0x4A0)],
    5: [(0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0), (0x330, 0x4A0)],
}


def refusal(case: snp.Minted, **options: Any) -> list[str]:
    """The codes with which a case is refused; fails the test if it is accepted."""
    with pytest.raises((MalformedError, NotGenuine, NotAcceptable, EndorsementsMissing)) as caught:
        snp.verify(case, **options)
    error = caught.value
    return [error.code] if isinstance(error, MalformedError) else snp.codes(error)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_minted_cases_pass(product: str, version: int, kind: str) -> None:
    result = snp.verify(snp.mint(product=product, version=version, kind=kind))

    assert (result.tier.name, result.to_json()["claims"]["signing_key"]) == ("AFFIRMING", kind)  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data[:-1], "malformed.truncated"),
        (lambda data: data + b"\0", "malformed.trailing_data"),
        (lambda data: data.ljust(4000, b"\0"), "malformed.trailing_data"),
        (
            lambda data: (b"\0" * 4 + b"\xa0\4\0\0" + bytes(24) + data).ljust(4000, b"\0"),
            "malformed.trailing_data",
        ),
        (lambda data: b"", "malformed.truncated"),
    ],
)
def test_snp_01_another_size_is_refused(change: Any, code: str) -> None:
    case = snp.mint()

    with pytest.raises(MalformedError) as caught:
        snp.verify(Evidence(EvidencePart("snp", change(case.report)), endorsements=case.endorsements))

    assert caught.value.code == code


def test_snp_01_the_header_of_the_ioctl_is_taken_off_only_when_it_is_named() -> None:
    report = snp.mint().report
    response = (bytes(4) + (0x4A0).to_bytes(4, "little") + bytes(24) + report).ljust(4000, b"\0")

    assert formats.read(response, format="snp-response").platform.data == report
    with pytest.raises(MalformedError) as automatic:
        formats.read(response)
    with pytest.raises(MalformedError) as raw:
        formats.read(response, format="snp")

    assert (automatic.value.code, raw.value.code) == ("malformed.unknown_format", "malformed.trailing_data")


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({0: b"\x16"}, "malformed.unknown_format"),
        ({4: b"\x00"}, "malformed.length_mismatch"),
        ({4: b"\xff\xff\xff\xff"}, "malformed.length_mismatch"),
        ({8: b"\x01"}, "malformed.reserved_not_zero"),
        ({3999: b"\x01"}, "malformed.reserved_not_zero"),
    ],
)
def test_snp_01_a_response_with_an_error_a_size_or_padding_of_its_own_is_refused(
    patch: dict[int, bytes], code: str
) -> None:
    response = (bytes(4) + (0x4A0).to_bytes(4, "little") + bytes(24) + snp.mint().report).ljust(4000, b"\0")

    with pytest.raises(MalformedError) as caught:
        wire.decode_report_response(snp.patched(response, patch))

    assert caught.value.code == code


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_snp_02_no_reserved_byte_may_be_set_although_the_signature_covers_it(version: int) -> None:
    case = snp.mint(version=version)

    for first, last in RESERVED[version]:
        for offset in range(first, last):
            assert refusal(case.resigned({offset: b"\x01"})) == ["malformed.reserved_not_zero"], hex(offset)


@pytest.mark.parametrize("version", [0, 1, 6, 0xFFFFFFFF, 0x02000000])
def test_snp_03_versions_that_are_not_known_are_refused(version: int) -> None:
    case = snp.mint().resigned({0: version.to_bytes(4, "little")})

    assert refusal(case) == ["malformed.unsupported_version"]


def test_snp_03_fields_of_version_3_are_reserved_in_version_2() -> None:
    assert refusal(snp.mint(version=3).resigned({0: b"\x02"})) == ["malformed.reserved_not_zero"]
    assert refusal(snp.mint(version=5).resigned({0: b"\x03"})) == ["malformed.reserved_not_zero"]


@pytest.mark.parametrize(
    ("policy", "reference", "code"),
    [
        (0x3001F | 1 << 19, {}, "not_acceptable.debug"),
        (0x3001F | 1 << 18, {}, "not_acceptable.attributes"),
        (0x1001F, {}, "not_acceptable.attributes"),
        (0x3001F, {"min_abi": "1.0"}, "not_acceptable.attributes"),
        (0x3001F, {"guest_policy": {"smt": False}}, "not_acceptable.attributes"),
        (0x3001F, {"guest_policy": {"single_socket": True}}, "not_acceptable.attributes"),
    ],
)
def test_snp_04_a_guest_policy_that_admits_too_much_is_refused(
    policy: int, reference: dict[str, Any], code: str
) -> None:
    assert refusal(snp.mint(report={"policy": policy}), reference=reference) == [code]


def test_snp_04_bits_of_the_guest_policy_that_are_not_known_are_refused() -> None:
    for bit in range(26, 64):
        assert refusal(snp.mint(report={"policy": 0x3001F | 1 << bit})) == ["malformed.reserved_not_zero"]


def test_snp_04_what_the_policy_admits_in_words_is_accepted() -> None:
    debug = snp.verify(snp.mint(report={"policy": 0xB001F}), top={"allow_debug": True})
    migrated = snp.verify(snp.mint(report={"policy": 0x7001F}), reference={"allow_migrate_ma": True})
    single = snp.verify(
        snp.mint(report={"policy": 0x120137}),
        reference={"guest_policy": {"single_socket": True}, "min_abi": "1.55"},
    )

    assert [one.tier.name for one in (debug, migrated, single)] == ["CONTRAINDICATED", "WARNING", "AFFIRMING"]


@pytest.mark.parametrize("vmpl", [1, 2, 3, 4, 0xFFFFFFFF])
def test_snp_05_another_privilege_level_is_refused(vmpl: int) -> None:
    assert refusal(snp.mint(report={"vmpl": vmpl})) == ["not_acceptable.vmpl"]


def test_snp_05_a_report_that_the_host_asked_for_is_refused_under_every_policy() -> None:
    case = snp.mint(report={"vmpl": 0xFFFFFFFF})

    assert refusal(case, reference={"vmpl": [0, 1, 2, 3]}) == ["not_acceptable.vmpl"]
    with pytest.raises(ConfideError) as caught:
        snp.policy({"vmpl": [0xFFFFFFFF]})
    assert caught.value.code == "configuration.invalid"
    assert snp.verify(snp.mint(report={"vmpl": 2}), reference={"vmpl": [2]}).tier.name == "AFFIRMING"


@pytest.mark.parametrize(("kind", "other"), [("vcek", 1), ("vlek", 0)])
def test_snp_06_a_report_signed_with_another_kind_of_key_than_its_certificate_is_refused(
    kind: str, other: int
) -> None:
    assert refusal(snp.mint(kind=kind, report={"key_info": other << 2})) == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize("key", [2, 6, 7])
def test_snp_06_a_report_that_names_no_key_is_refused(key: int) -> None:
    assert refusal(snp.mint(report={"key_info": key << 2})) == ["not_genuine.identity_mismatch"]


def test_snp_07_an_author_key_that_is_enabled_and_absent_is_refused() -> None:
    case = snp.mint(report={"key_info": 1, "author_key_digest": bytes(48)})

    assert refusal(case) == ["not_acceptable.signer"]
    assert snp.verify(snp.mint(report={"key_info": 1})).tier.name == "AFFIRMING"


@pytest.mark.parametrize("name", ["id_key_digest", "author_key_digest"])
def test_snp_07_a_signer_that_the_policy_does_not_name_is_refused(name: str) -> None:
    own = {"id_key_digest": b"\x06" * 48, "author_key_digest": b"\x07" * 48}[name]

    assert snp.verify(snp.mint(), reference={name: [own.hex()]}).tier.name == "AFFIRMING"
    assert refusal(snp.mint(), reference={name: ["ab" * 48]}) == ["not_acceptable.signer"]


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_snp_08_a_certificate_of_another_chip_is_refused(product: str) -> None:
    other = bytes(len(snp.HWID[product]) - 1) + b"\x99"
    case = snp.mint(product=product, oids={endorse.OID_HWID: Extension(critical=False, value=other)})

    assert refusal(case) == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_snp_08_the_hardware_id_is_read_in_both_of_its_forms_and_no_other(product: str) -> None:
    hwid = snp.HWID[product]
    wrapped = Extension(critical=False, value=bytes((4, len(hwid))) + hwid)
    longer = Extension(critical=False, value=hwid + b"\0")

    assert snp.verify(snp.mint(product=product, oids={endorse.OID_HWID: wrapped})).tier.name == "AFFIRMING"
    assert refusal(snp.mint(product=product, oids={endorse.OID_HWID: longer})) == [
        "malformed.length_mismatch"
    ]


@pytest.mark.parametrize(
    ("product", "level"),
    [*itertools.product(["Milan", "Genoa", "Turin"], ["BL", "TEE", "SNP", "UCODE"]), ("Turin", "FMC")],
)
def test_snp_09_a_certificate_for_another_tcb_is_refused_for_each_level(product: str, level: str) -> None:
    oid = getattr(endorse, f"OID_{level}_SPL")
    case = snp.mint(product=product, oids={oid: Extension(critical=False, value=snp.der_integer(200))})

    assert refusal(case) == ["not_genuine.tcb_mismatch"]


def test_snp_09_the_certificate_goes_with_the_reported_tcb_and_not_with_the_current_one() -> None:
    newer = bytes((10, 0, 0, 0, 0, 0, 25, 84))

    assert snp.verify(snp.mint(report={"current_tcb": newer})).tier.name == "AFFIRMING"
    assert refusal(snp.mint(report={"reported_tcb": newer})) == ["not_genuine.tcb_mismatch"]


@pytest.mark.parametrize(
    "value", [b"\x02\x02\x00\x10", b"\x02\x01\x80", b"\x02\x01", b"\x04\x01\x10", b"\x02\x02\x01\x00"]
)
def test_snp_09_a_level_in_another_form_than_a_small_der_integer_is_refused(value: bytes) -> None:
    case = snp.mint(oids={endorse.OID_SNP_SPL: Extension(critical=False, value=value)})

    assert refusal(case) == ["malformed.non_canonical"]


@pytest.mark.parametrize("oid", [endorse.OID_SNP_SPL, endorse.OID_HWID, endorse.OID_STRUCT_VERSION])
def test_snp_09_a_certificate_without_one_of_its_extensions_is_refused(oid: str) -> None:
    assert refusal(snp.mint(oids={oid: None})) == ["malformed.unknown_format"]


def test_snp_10_a_masked_chip_id_goes_with_no_vcek() -> None:
    zeros = Extension(critical=False, value=bytes(64))

    assert refusal(snp.mint(report={"chip_id": bytes(64)})) == ["not_genuine.identity_mismatch"]
    both = snp.mint(report={"chip_id": bytes(64)}, oids={endorse.OID_HWID: zeros})
    assert refusal(both) == ["not_genuine.identity_mismatch"]


def test_snp_10_a_masked_chip_id_goes_with_a_vlek_where_the_policy_admits_one() -> None:
    case = snp.mint(kind="vlek")

    assert snp.verify(case).to_json()["claims"]["csp_id"] == "CN=cc-nowhere-1.example.com"  # type: ignore[index]
    assert refusal(case, reference={"signing_keys": ["vcek"]}) == ["not_acceptable.attributes"]
    assert refusal(case, reference={"chip_ids": ["11" * 64]}) == ["not_acceptable.identity"]


def test_snp_11_a_tcb_in_the_layout_of_another_product_is_refused() -> None:
    genoa_in_turin = snp.mint(product="Turin", report={"reported_tcb": snp.TCB["Genoa"]})
    turin_in_genoa = snp.mint(product="Genoa", report={"reported_tcb": snp.TCB["Turin"]})

    assert set(refusal(genoa_in_turin)) == {"not_genuine.tcb_mismatch"}
    assert set(refusal(turin_in_genoa)) == {"not_genuine.tcb_mismatch"}


def test_snp_11_the_chip_id_of_turin_is_eight_bytes_and_then_zeros() -> None:
    tail = snp.HWID["Turin"].ljust(63, b"\0") + b"\x01"

    assert refusal(snp.mint(product="Turin", report={"chip_id": tail})) == ["not_genuine.identity_mismatch"]


def test_snp_12_a_report_from_another_product_line_than_its_certificate_is_refused() -> None:
    family, model, _ = snp.CPUID["Genoa"]
    case = snp.mint(product="Milan", report={"cpuid_fam_id": family, "cpuid_mod_id": model})

    assert refusal(case) == ["not_genuine.identity_mismatch"]


def test_snp_12_a_certificate_under_the_root_of_another_product_line_is_refused() -> None:
    case = snp.mint(product="Genoa", root=snp.authority("Milan"))

    assert refusal(case) == ["not_genuine.identity_mismatch"]


def test_snp_12_a_simulated_root_may_stand_for_another_product_only_under_a_name_of_its_own() -> None:
    case = snp.mint(product="Genoa", root=snp.authority("Milan"))
    milan = case.authority.anchor(simulated=True)

    assert refusal(case, anchors=(milan,), allow_simulated=True) == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize(
    ("model", "product"),
    [(0x00, "Milan"), (0x0F, "Milan"), (0x10, "Genoa"), (0x1F, "Genoa"), (0xA0, "Genoa"), (0xAF, "Genoa")],
)
def test_snp_12_models_belong_to_their_product_line(model: int, product: str) -> None:
    assert snp.verify(snp.mint(product=product, report={"cpuid_mod_id": model})).tier.name == "AFFIRMING"


@pytest.mark.parametrize(
    ("name", "code"), [("Rome", "not_genuine.identity_mismatch"), ("", "malformed.non_canonical")]
)
def test_snp_12_a_certificate_of_an_unknown_product_is_refused(name: str, code: str) -> None:
    case = snp.mint(oids={endorse.OID_PRODUCT_NAME: Extension(critical=False, value=snp.der_text(name))})

    assert refusal(case) == [code]


def test_snp_12_the_stepping_in_a_product_name_is_no_part_of_the_product_line() -> None:
    named = Extension(critical=False, value=snp.der_text("Genoa-B1"))

    assert snp.verify(snp.mint(oids={endorse.OID_PRODUCT_NAME: named})).tier.name == "AFFIRMING"


@pytest.mark.parametrize("name", ["bootloader", "snp", "microcode"])
def test_snp_13_each_level_of_the_tcb_has_a_minimum_of_its_own(name: str) -> None:
    levels = {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
    lower_elsewhere = dict.fromkeys(levels, 0) | {name: levels[name] + 1}

    assert snp.verify(snp.mint(), reference={"min_tcb": levels}).tier.name == "AFFIRMING"
    assert refusal(snp.mint(), reference={"min_tcb": lower_elsewhere}) == ["not_acceptable.below_minimum"]


def test_snp_13_a_level_that_the_product_does_not_have_is_below_every_minimum() -> None:
    assert refusal(snp.mint(product="Genoa"), reference={"min_tcb": {"fmc": 0}}) == [
        "not_acceptable.below_minimum"
    ]
    assert snp.verify(snp.mint(product="Turin"), reference={"min_tcb": {"fmc": 1}}).tier.name == "AFFIRMING"
    assert refusal(snp.mint(product="Turin"), reference={"min_tcb": {"fmc": 2}}) == [
        "not_acceptable.below_minimum"
    ]


def test_snp_13_a_minimum_by_product_line_refuses_the_lines_that_it_does_not_name() -> None:
    floors = {"min_tcb": {"Milan": {"snp": 24}, "Turin": {"fmc": 1}}}

    assert snp.verify(snp.mint(product="Milan"), reference=floors).tier.name == "AFFIRMING"
    assert refusal(snp.mint(product="Genoa"), reference=floors) == ["not_acceptable.below_minimum"]


def test_snp_14_provisional_firmware_is_refused_where_the_policy_says_so() -> None:
    older = bytes((10, 0, 0, 0, 0, 0, 22, 84))
    version = wire.VersionNumber(build=0, minor=55, major=1)
    strict = {"allow_provisional_firmware": False}

    assert snp.verify(snp.mint(), reference=strict).tier.name == "AFFIRMING"
    assert snp.verify(snp.mint(report={"committed_tcb": older})).tier.name == "AFFIRMING"
    for changed in ({"committed_tcb": older}, {"committed_version": version}):
        assert refusal(snp.mint(report=changed), reference=strict) == ["not_acceptable.out_of_date"]


def test_snp_15_a_guest_that_was_launched_on_older_firmware_is_refused() -> None:
    case = snp.mint(report={"launch_tcb": bytes((10, 0, 0, 0, 0, 0, 22, 84))})

    assert snp.verify(case, reference={"min_tcb": {"snp": 23}}).tier.name == "AFFIRMING"
    assert refusal(case, reference={"min_launch_tcb": {"snp": 23}}) == ["not_acceptable.below_minimum"]


@pytest.mark.parametrize(
    ("wanted", "platform"),
    [
        ({"alias_check_complete": True}, 0x25 & ~0x20),
        ({"smt_en": False}, 0x25),
        ({"ciphertext_hiding_dram_en": True}, 0x25),
        ({"tio_en": False}, 0x25 | 0x80),
    ],
)
def test_snp_16_a_platform_that_is_configured_otherwise_is_refused(
    wanted: dict[str, bool], platform: int
) -> None:
    case = snp.mint(report={"platform_info": platform})

    assert refusal(case, reference={"platform_info": wanted}) == ["not_acceptable.attributes"]
    opposite = {name: not value for name, value in wanted.items()}
    assert snp.verify(case, reference={"platform_info": opposite}).tier.name == "AFFIRMING"


def test_snp_16_platform_bits_that_are_not_known_are_refused() -> None:
    for bit in range(8, 64):
        assert refusal(snp.mint(report={"platform_info": 1 << bit})) == ["malformed.reserved_not_zero"]
    for bit in range(5, 32):
        assert refusal(snp.mint(report={"key_info": 1 << bit})) == ["malformed.reserved_not_zero"]


@pytest.mark.parametrize("vector", ["launch_mit_vector", "current_mit_vector"])
def test_snp_17_a_mitigation_that_is_missing_at_launch_or_now_is_refused(vector: str) -> None:
    wanted = {"mitigations": [0, 3]}

    assert snp.verify(snp.mint(version=5), reference=wanted).tier.name == "AFFIRMING"
    assert refusal(snp.mint(version=5, report={vector: 0x37}), reference=wanted) == [
        "not_acceptable.below_minimum"
    ]


def test_snp_17_a_report_that_cannot_show_mitigations_does_not_have_them() -> None:
    assert set(refusal(snp.mint(version=3), reference={"mitigations": [0]})) == {
        "not_acceptable.below_minimum"
    }


def test_snp_18_each_ca_certifies_its_own_kind_of_key_only() -> None:
    root = snp.authority("Genoa")
    vcek_by_asvk = snp.mint(certificate={"issuer": snp.name("SEV-VLEK-Genoa"), "signing_key": root.asvk_key})
    vlek_by_ask = snp.mint(
        kind="vlek", certificate={"issuer": snp.name("SEV-Genoa"), "signing_key": root.ask_key}
    )

    assert refusal(vcek_by_asvk) == ["not_genuine.chain_invalid"]
    assert refusal(vlek_by_ask) == ["not_genuine.chain_invalid"]


def test_snp_18_a_key_that_the_root_certified_itself_is_refused() -> None:
    root = snp.authority("Genoa")
    case = snp.mint(certificate={"issuer": snp.name("ARK-Genoa"), "signing_key": root.ark_key})

    assert refusal(case) == ["not_genuine.chain_invalid"]


def test_snp_18_a_root_that_looks_alike_is_not_the_root() -> None:
    case = snp.mint(root=snp.authority("Genoa", seed=2))
    genuine = snp.authority("Genoa").anchor()

    # Its CAs come with the evidence, as an attacker would send them.
    forged = snp.mint(root=case.authority, extra=(case.authority.ask, case.authority.ark))
    assert refusal(case, anchors=(genuine,)) == ["not_genuine.bad_signature"]
    assert refusal(forged, anchors=(genuine,)) == ["not_genuine.untrusted_root"]


def test_snp_18_a_ca_that_comes_with_the_evidence_counts_only_below_a_pinned_root() -> None:
    case = snp.mint(extra=(snp.authority().ask,))
    bare = snp.authority().anchor()
    only_root = type(bare)(bare.tee, bare.name, (snp.authority().ark,))

    assert snp.verify(case, anchors=(only_root,)).tier.name == "AFFIRMING"


def test_snp_19_r_and_s_in_big_endian_are_refused() -> None:
    case = snp.mint()
    r, s = case.report[0x2A0:0x2D0], case.report[0x2E8:0x318]

    assert refusal(case.tamper(0x2A0, r[::-1]).tamper(0x2E8, s[::-1])) == ["not_genuine.bad_signature"]


@pytest.mark.parametrize("offset", [0x2D0, 0x2E7, 0x318, 0x32F])
def test_snp_20_r_and_s_of_more_than_384_bits_are_refused(offset: int) -> None:
    assert refusal(snp.mint().tamper(offset, b"\x01")) == ["malformed.non_canonical"]


@pytest.mark.parametrize("r", [0, 1, 2**384 - 1])
@pytest.mark.parametrize("s", [0, 2**384 - 1])
def test_ev_09_degenerate_signatures_are_refused(r: int, s: int) -> None:
    case = snp.mint().tamper(0x2A0, r.to_bytes(72, "little") + s.to_bytes(72, "little"))

    assert refusal(case) == ["not_genuine.bad_signature"]


def test_snp_21_host_data_is_the_hosts_and_is_refused_only_where_it_is_pinned() -> None:
    case = snp.mint(report={"host_data": b"\x66" * 32})

    assert snp.verify(case).tier.name == "AFFIRMING"
    assert refusal(case, reference={"host_data": ["05" * 32]}) == ["not_acceptable.measurement"]
    # What the guest binds to is its report data: host data does not stand in for it.
    assert refusal(case, report_data=b"\x66" * 32 + bytes(32)) == ["not_acceptable.channel"]


def test_snp_22_an_equal_report_id_links_nothing() -> None:
    one = snp.mint(report={"report_id": b"\x42" * 32})
    other = snp.mint(report={"report_id": b"\x42" * 32, "measurement": b"\xaa" * 48})

    assert snp.verify(one).tier.name == "AFFIRMING"
    assert refusal(other) == ["not_acceptable.measurement"]


def _table(*entries: tuple[bytes, int, int], body: bytes = b"", end: bool = True) -> bytes:
    rows = b"".join(
        guid + offset.to_bytes(4, "little") + length.to_bytes(4, "little") for guid, offset, length in entries
    )
    return rows + (bytes(24) if end else b"") + body


GUID = wire.VCEK_GUID.bytes


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (_table((GUID, 72, 4), (GUID, 74, 4), body=b"abcdef"), "malformed.length_mismatch"),
        (_table((GUID, 40, 4), body=b"abcd"), "malformed.length_mismatch"),
        (_table((GUID, 48, 5), body=b"abcd"), "malformed.length_mismatch"),
        (_table((GUID, 0xFFFFFFFF, 0xFFFFFFFF), body=b"abcd"), "malformed.length_mismatch"),
        (_table((GUID, 48, 0), body=b""), "malformed.length_mismatch"),
        (_table((GUID, 48, 4), body=b"abcd", end=False), "malformed.truncated"),
        (_table(*[(GUID, 1, 1)] * 33), "malformed.limit_exceeded"),
        (_table(*[(GUID, 1, 1)] * 10000), "malformed.limit_exceeded"),
        (_table((GUID, 48, 4), body=b"abcde"), "malformed.trailing_data"),
        (b"", "malformed.truncated"),
    ],
)
def test_snp_23_a_certificate_table_that_is_not_in_order_is_refused(table: bytes, code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        wire.read_certificate_table(table)

    assert caught.value.code == code


def test_snp_23_a_certificate_table_gives_its_certificates() -> None:
    case = snp.mint()
    crl = case.authority.crl()
    entries = [(wire.VCEK_GUID, case.certificate), (wire.ASK_GUID, case.authority.ask), (wire.CRL_GUID, crl)]
    table = wire.encode_certificate_table(tuple(wire.CertificateTableEntry(*entry) for entry in entries))

    found = formats.read_certificate_table(table.ljust(4096, b"\0"))

    assert (found.certificates, found.crls) == ((case.certificate, case.authority.ask), (crl,))


def test_snp_24_a_revoked_ca_is_refused() -> None:
    ask, asvk = snp.authority().crl(revoked=(2,)), snp.authority().crl(revoked=(3,))

    assert refusal(snp.mint(crls=(ask,))) == ["not_genuine.revoked"]
    assert refusal(snp.mint(kind="vlek", crls=(asvk,))) == ["not_genuine.revoked"]
    assert snp.verify(snp.mint(crls=(asvk,))).claims.checks[2].outcome == "passed"


def test_snp_24_a_crl_of_yesterday_still_revokes_and_no_longer_clears() -> None:
    times: Any = {
        "this_update": datetime(2026, 1, 1, tzinfo=UTC),
        "next_update": datetime(2026, 2, 1, tzinfo=UTC),
    }
    clear, revoking = snp.authority().crl(**times), snp.authority().crl(revoked=(2,), **times)
    required = {"require_revocation": True}

    assert refusal(snp.mint(crls=(revoking,))) == ["not_genuine.revoked"]
    assert refusal(snp.mint(crls=(clear,)), top=required) == ["endorsements_missing.crl_expired"]
    assert snp.verify(snp.mint(crls=(clear,))).claims.checks[2].outcome == "not checked"


def test_ev_20_a_missing_crl_is_reported_and_refused_only_where_the_policy_asks() -> None:
    result = snp.verify(snp.mint())
    required = {"require_revocation": True}

    assert "note.not_checked" in [reason.code for reason in result.reasons]
    assert refusal(snp.mint(), top=required) == ["endorsements_missing.crl"]
    checked = snp.verify(snp.mint(crls=(snp.authority().crl(),)), top=required)
    assert checked.claims.checks[2].outcome == "passed"
    assert checked.claims.expires == datetime(2026, 7, 1, tzinfo=UTC)


def test_ev_20_a_crl_of_another_key_or_issuer_clears_nothing() -> None:
    forged = snp.authority().crl(key=IssuingKey.from_scalar(99))
    other = snp.authority("Milan").crl()
    required = {"require_revocation": True}

    assert refusal(snp.mint(crls=(forged,))) == ["not_genuine.bad_signature"]
    assert refusal(snp.mint(crls=(other,)), top=required) == ["endorsements_missing.crl"]


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=64, max_size=64))
def test_snp_25_report_data_changes_no_other_field(data: bytes) -> None:
    base, other = snp.mint(version=5), snp.mint(version=5, report={"report_data": data})

    one, two = wire.decode_report(base.report), wire.decode_report(other.report)

    assert two.report_data == data
    for name in ("measurement", "host_data", "chip_id", "reported_tcb", "policy", "vmpl", "report_id"):
        assert getattr(one, name) == getattr(two, name)
    shown = snp.verify(other).to_json()["claims"]
    assert isinstance(shown, dict)
    assert (shown["report_data"], shown["measurement"]) == (data.hex(), snp.MEASUREMENT.hex())


def test_ev_19_each_certificate_counts_from_its_first_second_to_its_last() -> None:
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
    case = snp.mint(certificate={"not_before": first, "not_after": last})
    second = timedelta(seconds=1)

    assert snp.verify(case, at=first).tier.name == snp.verify(case, at=last).tier.name == "AFFIRMING"
    assert refusal(case, at=first - second) == ["not_genuine.not_yet_valid"]
    assert refusal(case, at=last + second) == ["not_genuine.expired"]


def test_ev_12_a_key_on_another_curve_is_refused() -> None:
    other = IssuingKey.generate_p256()
    case = snp.mint(certificate={"public_key": other.public_key_der})

    assert refusal(case)[0] in {
        "not_genuine.algorithm_mismatch",
        "not_genuine.weak_key",
        "not_genuine.unsupported_algorithm",
    }


def test_ev_16_a_ca_certificate_in_the_place_of_the_key_is_refused() -> None:
    assert refusal(snp.mint(certificate={"is_ca": True})) == ["not_genuine.wrong_usage"]
    critical = {"1.3.6.1.4.1.99999.1": Extension(critical=True, value=b"\x05\x00")}
    assert refusal(snp.mint(oids=critical)) == ["not_genuine.wrong_usage"]


def test_a_missing_certificate_leaves_the_question_open() -> None:
    case = snp.mint()
    bare = Evidence(EvidencePart("snp", case.report))

    with pytest.raises(EndorsementsMissing) as caught:
        snp.verify(bare)

    assert snp.codes(caught.value) == ["endorsements_missing.certificate"]


def test_of_several_certificates_the_one_that_fits_is_judged_whatever_their_order() -> None:
    case = snp.mint()
    older = snp.mint(oids={endorse.OID_SNP_SPL: Extension(critical=False, value=snp.der_integer(9))})
    other = snp.mint(oids={endorse.OID_HWID: Extension(critical=False, value=b"\x99" * 64)})
    stale = snp.mint(certificate={"not_after": datetime(2025, 1, 1, tzinfo=UTC)})

    for extra in ((older, other, stale), (stale, other, older)):
        several = snp.mint(extra=tuple(one.certificate for one in extra))
        assert snp.verify(several).tier.name == "AFFIRMING"
        first = Evidence(
            EvidencePart("snp", case.report),
            endorsements=type(case.endorsements)((*(one.certificate for one in extra), case.certificate)),
        )
        assert snp.verify(first).tier.name == "AFFIRMING"


def test_ev_15_more_certificates_than_a_chain_can_need_are_refused() -> None:
    many = tuple(
        snp.mint(certificate={"serial": serial}).certificate
        for serial in range(100, 100 + authenticate.MAX_CERTIFICATES)
    )

    assert refusal(snp.mint(extra=many)) == ["malformed.limit_exceeded"]


def test_one_failure_does_not_hide_another() -> None:
    case = snp.mint(
        report={"chip_id": b"\x99" * 64},
        oids={endorse.OID_UCODE_SPL: Extension(critical=False, value=snp.der_integer(1))},
        certificate={"not_after": datetime(2025, 1, 1, tzinfo=UTC)},
    ).tamper(0x50, b"\xff")

    assert refusal(case, top={"require_revocation": True}) == [
        "not_genuine.bad_signature",
        "not_genuine.expired",
        "not_genuine.tcb_mismatch",
        "not_genuine.identity_mismatch",
    ]


def test_everything_that_a_policy_refuses_is_named_at_once() -> None:
    case = snp.mint(report={"measurement": b"\xaa" * 48, "vmpl": 3, "policy": 0xB001F})

    assert refusal(case) == ["not_acceptable.measurement", "not_acceptable.vmpl", "not_acceptable.debug"]


def test_a_product_line_can_be_denied() -> None:
    case = snp.mint(product="Milan")

    assert refusal(case, reference={"deny_products": ["Milan"]}) == ["not_acceptable.attributes"]
    assert refusal(case, reference={"products": ["Genoa", "Turin"]}) == ["not_acceptable.attributes"]


def test_a_machine_that_the_policy_names_is_recognised() -> None:
    chip = snp.HWID["Genoa"].hex()

    result = snp.verify(snp.mint(), reference={"chip_ids": [chip]})

    assert result.vector.instance_identity == 2
    assert refusal(snp.mint(), reference={"chip_ids": ["ab" * 64]}) == ["not_acceptable.identity"]


@pytest.mark.parametrize("name", ["family_id", "image_id"])
def test_ids_of_the_guest_are_compared_where_they_are_pinned(name: str) -> None:
    own = {"family_id": "01" * 16, "image_id": "02" * 16}[name]

    assert snp.verify(snp.mint(), reference={name: [own]}).tier.name == "AFFIRMING"
    assert refusal(snp.mint(), reference={name: ["03" * 16]}) == ["not_acceptable.attributes"]


def test_a_lower_security_version_of_the_guest_is_refused() -> None:
    assert refusal(snp.mint(), reference={"min_guest_svn": 2}) == ["not_acceptable.below_minimum"]


@pytest.mark.parametrize(
    "times",
    [{"not_after": datetime(2025, 1, 1, tzinfo=UTC)}, {"not_before": datetime(2027, 1, 1, tzinfo=UTC)}],
)
@pytest.mark.parametrize("serial", [1, 200])
def test_of_two_certificates_for_the_same_key_the_valid_one_is_judged(
    times: dict[str, datetime], serial: int
) -> None:
    other = snp.mint(certificate=times | {"serial": serial})

    assert snp.verify(snp.mint(extra=(other.certificate,))).tier.name == "AFFIRMING"


def test_ev_20_more_crls_than_anybody_needs_are_refused() -> None:
    base = datetime(2026, 5, 1, tzinfo=UTC)
    lists = tuple(
        snp.authority().crl(this_update=base + timedelta(seconds=second))
        for second in range(authenticate.MAX_CRLS + 1)
    )

    assert snp.verify(snp.mint(crls=lists[:-1])).verdict == "accepted"
    assert refusal(snp.mint(crls=lists)) == ["malformed.limit_exceeded"]


def test_the_result_says_why_revocation_was_not_checked() -> None:
    old = snp.authority().crl(
        this_update=datetime(2026, 1, 1, tzinfo=UTC), next_update=datetime(2026, 2, 1, tzinfo=UTC)
    )

    absent, outdated = snp.verify(snp.mint()), snp.verify(snp.mint(crls=(old,)))

    assert absent.claims.checks[2].detail == "no CRL given"
    assert outdated.claims.checks[2].detail == "the CRL given is out of date"


@pytest.mark.parametrize("names", [[("O", "tests")], [("CN", "SEV-Genoa"), ("CN", "SEV-VLEK-Genoa")]])
def test_ev_16_a_ca_without_one_name_of_its_own_is_refused(names: list[tuple[str, str]]) -> None:
    root = snp.authority()
    ca = issue(
        subject=names,
        issuer=snp.name("ARK-Genoa"),
        public_key=root.ask_key.public_key_der,
        signing_key=root.ark_key,
        serial=9,
        not_before=snp.NOT_BEFORE,
        not_after=snp.NOT_AFTER,
        is_ca=True,
        path_length=0,
        key_usage=snp.CA_USAGE,
    )
    case = snp.mint(certificate={"issuer": names}, extra=(ca,))

    assert refusal(case) == ["not_genuine.chain_invalid"]
