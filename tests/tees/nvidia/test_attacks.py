# SPDX-License-Identifier: Apache-2.0
"""Attacks on the evidence of NVIDIA devices. Each starts from a case that passes, changes one thing, and names the refusal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.verifier import Verifier
from confide.crypto import x509
from confide.crypto.issue import IssuingKey
from confide.crypto.signing import CURVES
from confide.crypto.x509 import Extension
from confide.errors import ConfideError, MalformedError, NotGenuine
from confide.simulator.nvidia import Platform
from confide.tees.nvidia import authenticate, endorse, wire
from confide.wire.der_write import integer, oid, sequence, tagged
from support import nvidia, nvidia_permitted_bits
from support.refusal import code_of

if TYPE_CHECKING:
    from pathlib import Path

ORDER = CURVES["p384"][2]
SHA384 = "2.16.840.1.101.3.4.2.2"


def platform(**changes: Any) -> Platform:
    """A device of the usual world with other certificates."""
    serial = 0x41AB_0000_0000_0000_01
    own = {"device", "firmware"}
    return Platform.create(
        key=lambda role: nvidia.key(f"{role}{serial if role in own else ''}"), serial=serial, **changes
    )


@pytest.mark.parametrize("model", ["GH100", "GB100", "LS_10"])
def test_minted_cases_pass(model: str) -> None:
    result = nvidia.verify(nvidia.case(nvidia.device(model)))

    outcomes = {check.name: check.outcome for check in result.claims.checks}
    assert (result.tier.name, outcomes["rim"]) == ("AFFIRMING", "passed")
    assert result.claims.report_data == nvidia.NONCE
    assert bool(result.claims.unproven) == (model == "GB100")


# EV


def test_ev_03_no_bit_of_a_real_report_can_be_turned_over(shared: Path) -> None:
    _turn_over(shared, range(3, 10**6, 17))


@pytest.mark.slow
def test_ev_03_no_bit_of_a_real_report_can_be_turned_over_and_none_is_left_out(shared: Path) -> None:
    _turn_over(shared, range(10**6))


def _turn_over(shared: Path, bits: range) -> None:
    folder = nvidia.folder(shared)
    data = (folder / "hopper-550.90.07-full.report.bin").read_bytes()
    chain = x509.parse_pem((folder / "hopper-550.90.07-full.chain.pem").read_bytes())
    given = Endorsements(tuple(one.der for one in chain))
    at = datetime(2025, 10, 24, tzinfo=UTC)

    def judge(report: bytes) -> None:
        authenticate.authenticate(
            report, endorsements=given, anchors=endorse.anchors(), at=at, require_revocation=False
        )

    judge(data)
    passed = []
    for bit in bits:
        if bit >= 8 * len(data):
            break
        try:
            judge(nvidia.flipped(data, bit))
        except (MalformedError, NotGenuine):
            continue
        passed.append(bit)
    assert set(passed) <= nvidia_permitted_bits.REPORT


def test_ev_03_no_bit_of_a_real_certificate_can_be_turned_over(shared: Path) -> None:
    folder = nvidia.folder(shared)
    data = (folder / "hopper-550.90.07-full.report.bin").read_bytes()
    chain = [one.der for one in x509.parse_pem((folder / "hopper-550.90.07-full.chain.pem").read_bytes())]
    at = datetime(2025, 10, 24, tzinfo=UTC)

    for position in range(4):
        for bit in range(position, 8 * len(chain[position]), 61):
            changed = (*chain[:position], nvidia.flipped(chain[position], bit), *chain[position + 1 :])
            with pytest.raises(ConfideError) as caught:
                authenticate.authenticate(
                    data,
                    endorsements=Endorsements(changed),
                    anchors=endorse.anchors(),
                    at=at,
                    require_revocation=False,
                )
            assert caught.value.code.split(".")[0] in {
                "malformed",
                "not_genuine",
                "endorsements_missing",
            }, (position, bit)


@pytest.mark.parametrize(
    ("r", "s"),
    [
        (0, None), (None, 0), (0, 0), (ORDER, None), (None, ORDER), (ORDER + 1, None), (1, 1),
        (ORDER, ORDER), ((1 << 384) - 1, (1 << 384) - 1), (ORDER - 1, ORDER - 1),
    ],
)  # fmt: skip
def test_ev_09_degenerate_signatures_are_refused(r: int | None, s: int | None) -> None:
    case = nvidia.case()
    old = case.report[-96:]
    new = b"".join(
        old[start : start + 48] if value is None else value.to_bytes(48, "big")
        for start, value in ((0, r), (48, s))
    )

    assert nvidia.codes(replace(case, report=case.report[:-96] + new)) == ["not_genuine.bad_signature"]


def test_ev_09_r_and_s_are_big_endian_only() -> None:
    case = nvidia.case()
    r, s = case.report[-96:-48], case.report[-48:]

    swapped = case.report[:-96] + r[::-1] + s[::-1]
    assert nvidia.codes(replace(case, report=swapped)) == ["not_genuine.bad_signature"]
    assert nvidia.codes(replace(case, report=case.report[:-96] + s + r)) == ["not_genuine.bad_signature"]


def test_ev_10_the_other_s_verifies_and_is_another_report() -> None:
    case = nvidia.case()
    s = ORDER - int.from_bytes(case.report[-48:], "big")
    twin = replace(case, report=case.report[:-48] + s.to_bytes(48, "big"))

    assert nvidia.verify(twin).claims.report_data == nvidia.NONCE
    assert twin.report != case.report


def _with_point(point: bytes) -> Platform:
    key = sequence(sequence(oid("1.2.840.10045.2.1"), oid("1.3.132.0.34")), tagged(0x03, b"\x00" + point))
    made = platform()
    der = made.certificates[0]
    own = x509.Certificate.from_der(der).public_key_der
    # The certificate is signed by the device's key, so that only the key inside is wrong.
    parts = x509.Certificate.from_der(der).signed.tbs.replace(own, key)
    body = _reencoded(parts)
    issuer = made.firmware.issuer
    if issuer is None:
        raise TypeError
    r, s = issuer.key.sign_ecdsa(body)
    signature = tagged(0x03, b"\x00" + sequence(integer(r), integer(s)))
    encoded = sequence(body, sequence(oid("1.2.840.10045.4.3.3")), signature)
    return replace(made, firmware=replace(made.firmware, certificate=encoded))


def _reencoded(tbs: bytes) -> bytes:
    """A TBSCertificate whose outer length is made anew."""
    head = 4 if tbs[1] == 0x82 else 3
    return tagged(0x30, tbs[head:])


@pytest.mark.parametrize(
    "point",
    [
        b"\x04" + bytes(96),
        b"\x00",
        b"\x04" + b"\x01" * 96,
        b"\x02" + bytes(47) + b"\x01",
        b"\x04" + b"\xff" * 96,
    ],
    ids=["zero", "infinity", "off-curve", "compressed", "too-large"],
)
def test_ev_11_a_certificate_with_a_key_that_is_none_is_refused(point: bytes) -> None:
    case = nvidia.case()
    given = replace(case, certificates=_with_point(point).certificates)

    found = nvidia.codes(given)

    assert found[0] == "not_genuine.weak_key"


def test_ev_12_a_key_of_another_curve_is_refused() -> None:
    weak = IssuingKey.from_scalar(99, curve="p256")
    made = platform(changes={"firmware": {"public_key": weak.public_key_der}})

    assert "not_genuine.algorithm_mismatch" in nvidia.codes(nvidia.case(made))


def test_ev_15_order_repetition_and_others_certificates_change_nothing() -> None:
    case = nvidia.case()
    other = nvidia.device(serial=0x41AB_0000_0000_0000_99)
    stranger = nvidia.device(world="another")

    shuffled = (*reversed(case.certificates), *case.certificates, *other.certificates, *stranger.certificates)

    assert nvidia.verify(replace(case, certificates=shuffled)).tier.name == "AFFIRMING"


@pytest.mark.parametrize(
    ("left_out", "code"),
    [
        (0, "endorsements_missing.certificate"),
        (1, "not_genuine.chain_invalid"),
        (2, "not_genuine.chain_invalid"),
    ],
)
def test_ev_15_a_certificate_that_is_missing_is_missed(left_out: int, code: str) -> None:
    case = nvidia.case()
    rest = tuple(one for index, one in enumerate(case.certificates) if index != left_out)

    assert nvidia.codes(replace(case, certificates=rest)) == [code]


def test_ev_15_the_root_need_not_be_given_and_thousands_are_refused() -> None:
    case = nvidia.case()

    assert nvidia.verify(replace(case, certificates=case.certificates[:-1])).tier.name == "AFFIRMING"
    many = tuple(bytes(3) + number.to_bytes(2, "big") for number in range(1000))
    assert nvidia.codes(replace(case, certificates=many)) == ["malformed.limit_exceeded"]


def test_ev_16_a_certificate_that_is_not_a_ca_s_certifies_no_device() -> None:
    for role in ("identity", "provisioner", "device"):
        made = platform(changes={role: {"is_ca": False}})
        found = nvidia.codes(nvidia.case(made))
        assert found[0].split(".")[0] == "not_genuine", role
    made = platform(changes={"device": {"key_usage": frozenset({"digital_signature"})}})
    assert nvidia.codes(nvidia.case(made)) == ["not_genuine.wrong_usage"]


def test_ev_16_a_device_certified_by_the_root_itself_is_refused() -> None:
    made = platform()
    root = made.firmware
    while root.issuer is not None:
        root = root.issuer
    extensions = x509.Certificate.from_der(made.certificates[0]).extensions
    leaf = root.certify(
        "firmware",
        made.firmware.key,
        5,
        is_ca=False,
        key_usage=frozenset({"digital_signature"}),
        extensions={
            name: extensions[name] for name in (endorse.OID_COMPOSITE_DEVICE_ID, endorse.OID_SUBJECT_ALT_NAME)
        },
    )

    case = nvidia.case(made, certificates=leaf.chain)
    assert nvidia.codes(case) == ["not_genuine.chain_invalid"]


def test_ev_18_without_a_root_nothing_is_genuine() -> None:
    case = nvidia.case()

    for anchors in ((), (replace(case.anchor, tee="snp"),), (replace(case.anchor, name="rim"),)):
        found = code_of(
            authenticate.authenticate,
            case.report,
            endorsements=case.endorsements,
            anchors=anchors,
            at=nvidia.AT,
            require_revocation=False,
        )
        assert found == "not_genuine.no_trusted_roots"


@pytest.mark.parametrize("role", ["root", "identity", "provisioner", "device", "firmware"])
def test_ev_19_every_certificate_must_be_valid_at_the_time(role: str) -> None:
    start, end = nvidia.AT - timedelta(days=1), nvidia.AT + timedelta(days=1)
    case = nvidia.case(platform(changes={role: {"not_before": start, "not_after": end}}))

    assert nvidia.verify(case, at=start).claims.expires == end
    assert nvidia.verify(case, at=end).tier.name == "AFFIRMING"
    assert nvidia.codes(case, at=start - timedelta(seconds=1)) == ["not_genuine.not_yet_valid"]
    assert nvidia.codes(case, at=end + timedelta(seconds=1)) == ["not_genuine.expired"]
    assert nvidia.verify(case, at=nvidia.AT).tier.name == "AFFIRMING"


# GPU-01: the nonce


def test_gpu_01_another_nonce_than_was_asked_for_is_refused() -> None:
    case = nvidia.case()

    assert nvidia.verify(case, report_data=nvidia.NONCE).freshness == "not checked"
    assert nvidia.codes(case, report_data=bytes(32)) == ["not_acceptable.channel"]
    assert nvidia.codes(case, report_data=nvidia.NONCE[:31])[0] == "not_acceptable.channel"
    assert nvidia.codes(case, report_data=nvidia.NONCE + b"\x00")[0] == "not_acceptable.channel"


def test_gpu_01_the_device_s_own_nonce_is_not_the_verifier_s() -> None:
    case = nvidia.case(nonce=bytes(32), device_nonce=nvidia.NONCE)

    assert nvidia.codes(case, report_data=nvidia.NONCE) == ["not_acceptable.channel"]
    assert nvidia.verify(case).claims.report_data == bytes(32)


def test_gpu_01_a_nonce_put_in_afterwards_breaks_the_signature() -> None:
    case = nvidia.case(nonce=bytes(32))
    offset = wire.Request.offset("nonce")
    forged = case.report[:offset] + nvidia.NONCE + case.report[offset + 32 :]

    assert nvidia.codes(replace(case, report=forged)) == ["not_genuine.bad_signature"]


# GPU-02: modes and debugging


@pytest.mark.parametrize(
    ("flag", "modes", "accepted"),
    [
        (b"\x00\x00", ["spt"], True),
        (b"\x01\x00", ["spt", "mpt"], True),
        (b"\x01\x00", ["spt"], False),
        (b"\x02\x00", ["spt", "mpt"], False),
        (None, ["spt", "mpt", "ppcie"], False),
    ],
)
def test_gpu_02_a_mode_that_the_policy_does_not_admit_is_refused(
    flag: bytes | None, modes: list[str], accepted: bool
) -> None:
    case = nvidia.case(fields={"feature_flag": flag})

    if accepted:
        assert nvidia.verify(case, {"modes": modes}).tier.name == "AFFIRMING"
    else:
        assert nvidia.codes(case, {"modes": modes}) == ["not_acceptable.gpu_mode"]
    assert nvidia.verify(case).tier.name == "AFFIRMING"


@pytest.mark.parametrize(
    ("status", "wanted", "accepted"),
    [
        (b"\xaa", True, True),
        (b"\x55", False, True),
        (b"\x55", True, False),
        (b"\xaa", False, False),
        (b"\x00", False, False),
        (None, False, False),
        (None, True, False),
    ],
)
def test_gpu_02_protected_pcie_must_be_what_the_policy_says(
    status: bytes | None, wanted: bool, accepted: bool
) -> None:
    case = nvidia.case(fields={"protected_pcie_status": status})

    if accepted:
        assert nvidia.verify(case, {"protected_pcie": wanted}).tier.name == "AFFIRMING"
    else:
        assert nvidia.codes(case, {"protected_pcie": wanted}) == ["not_acceptable.gpu_mode"]


def _tcb_info(flags: int) -> dict[str, Extension | None]:
    firmware = sequence(oid(SHA384), tagged(0x04, nvidia.device("GB100").fwid))
    value = sequence(tagged(0xA6, firmware), tagged(0x87, b"\x00" + flags.to_bytes(4, "big")))
    return {endorse.OID_TCB_INFO: Extension(critical=False, value=value)}


def test_gpu_02_firmware_that_is_open_to_debugging_is_refused() -> None:
    debug = Platform.create("GB100", key=nvidia.key, extensions=_tcb_info(1 << 28))
    closed = Platform.create("GB100", key=nvidia.key, extensions=_tcb_info(1 << 31 | 1))

    assert nvidia.verify(nvidia.case(closed)).tier.name == "AFFIRMING"
    assert nvidia.codes(nvidia.case(debug)) == ["not_acceptable.debug"]
    assert nvidia.verify(nvidia.case(debug), top={"allow_debug": True}).tier.name == "CONTRAINDICATED"


@pytest.mark.parametrize(("flag", "word"), [(1 << 30, "not secure"), (1 << 29, "in recovery")])
def test_gpu_02_firmware_whose_certificate_calls_it_unfit_is_refused(flag: int, word: str) -> None:
    case = nvidia.case(Platform.create("GB100", key=nvidia.key, extensions=_tcb_info(flag)))

    assert nvidia.codes(case) == ["not_acceptable.attributes"]
    assert nvidia.codes(case, top={"allow_debug": True}) == ["not_acceptable.attributes"]
    with pytest.raises(ConfideError, match=word):
        nvidia.verify(case)


def test_gpu_02_flags_count_beside_another_extension_of_dice() -> None:
    both = Platform.create("GH100", key=nvidia.key, extensions=_tcb_info(1 << 28))

    assert nvidia.codes(nvidia.case(both)) == ["not_acceptable.debug"]


@pytest.mark.parametrize("flags", [b"", b"\x08\x00", b"\xff" + bytes(4), bytes(6)])
def test_gpu_02_flags_that_are_no_bit_string_of_dice_are_malformed(flags: bytes) -> None:
    firmware = sequence(oid(SHA384), tagged(0x04, nvidia.device("GB100").fwid))
    value = sequence(tagged(0xA6, firmware), tagged(0x87, flags))
    extension = {endorse.OID_TCB_INFO: Extension(critical=False, value=value)}

    assert nvidia.codes(nvidia.case(Platform.create("GB100", key=nvidia.key, extensions=extension))) == [
        "malformed.non_canonical"
    ]


# GPU-03: measurements and documents


def test_gpu_03_a_measurement_that_differs_is_refused_by_its_index() -> None:
    case = nvidia.case(measurements={7: bytes(47) + b"\x01"})

    with pytest.raises(ConfideError) as caught:
        nvidia.verify(case)

    assert caught.value.code == "not_acceptable.measurement"
    assert "measurements 7 differ" in caught.value.message
    assert nvidia.verify(case, {"rim": "ANY"}).tier.name == "WARNING"


def test_gpu_03_each_measurement_that_a_document_has_counts_and_no_other() -> None:
    covered = {0, 1, 2, 3, 8, 12, 7, 21, 22}
    for index in range(64):
        case = nvidia.case(measurements={index: b"\x01" * 48})
        if index in covered:
            assert nvidia.codes(case) == ["not_acceptable.measurement"], index
        else:
            # 35 is left out because NVDEC0 is disabled, 40 because the document says that it does not count.
            assert nvidia.verify(case).tier.name == "AFFIRMING", index


@pytest.mark.parametrize("status", [b"\xaa", b"\x00", None])
def test_gpu_03_the_measurement_of_a_unit_that_is_not_disabled_counts(status: bytes | None) -> None:
    changed: dict[str, Any] = {"fields": {"nvdec0_status": status}, "measurements": {35: b"\x01" * 48}}

    assert nvidia.codes(nvidia.case(**changed)) == ["not_acceptable.measurement"]
    assert nvidia.verify(nvidia.case(fields={"nvdec0_status": status})).tier.name == "AFFIRMING"


def test_gpu_03_one_of_several_values_is_enough() -> None:
    assert nvidia.verify(nvidia.case(measurements={7: bytes(48)})).tier.name == "AFFIRMING"
    assert nvidia.codes(nvidia.case(measurements={0: bytes(48)})) == ["not_acceptable.measurement"]


def test_gpu_03_a_value_is_not_compared_by_its_beginning() -> None:
    for value in (nvidia.device().measurements[0] + b"\x00", nvidia.device().measurements[0][:47]):
        assert nvidia.codes(nvidia.case(measurements={0: value})) == ["not_acceptable.measurement"]


def test_gpu_03_a_measurement_that_the_report_does_not_have_is_refused() -> None:
    device = nvidia.device()
    fewer = replace(device, measurements={k: v for k, v in device.measurements.items() if k != 22})

    assert nvidia.codes(nvidia.case(fewer, manifests=device.manifests())) == ["not_acceptable.measurement"]


@pytest.mark.parametrize("kind", ["driver", "vbios"])
def test_gpu_03_a_document_of_another_version_is_none(kind: str) -> None:
    others = nvidia.device().manifests()
    version = {"driver": "575.57.09", "vbios": "96.00.CC.00.03"}[kind]
    others[kind] = replace(others[kind], version=version)

    assert nvidia.codes(nvidia.case(manifests=others)) == ["endorsements_missing.rim"]


@pytest.mark.parametrize(
    "change",
    [{"product": "GB100"}, {"edition": "SWITCH"}, {"version": "575.57.080"}, {"version": "575.57.8"}],
)
def test_gpu_03_a_document_of_another_device_is_none(change: dict[str, str]) -> None:
    others = nvidia.device().manifests()
    others["driver"] = replace(others["driver"], **change)  # type: ignore[arg-type]

    assert nvidia.codes(nvidia.case(manifests=others)) == ["endorsements_missing.rim"]


def test_gpu_03_an_older_document_beside_an_older_driver_is_a_rollback_that_a_floor_refuses() -> None:
    case = nvidia.case()

    assert nvidia.verify(case, {"min_driver": "575.57.08"}).tier.name == "AFFIRMING"
    assert nvidia.codes(case, {"min_driver": "575.57.9"}) == ["not_acceptable.below_minimum"]
    assert nvidia.codes(case, {"min_driver": "580"}) == ["not_acceptable.below_minimum"]
    assert nvidia.verify(case, {"min_vbios": "96.00.CC.00.02"}).tier.name == "AFFIRMING"
    assert nvidia.codes(case, {"min_vbios": "96.00.CC.00.03"}) == ["not_acceptable.below_minimum"]


def test_gpu_03_a_driver_whose_version_is_no_number_is_below_every_floor() -> None:
    case = nvidia.case(fields={"driver_version": b"r575_00-internal\x00"})

    assert nvidia.codes(case, {"min_driver": "1", "rim": "ANY"}) == ["not_acceptable.below_minimum"]


def test_gpu_03_no_document_at_all_is_undecided() -> None:
    assert nvidia.codes(nvidia.case(manifests={})) == ["endorsements_missing.rim"] * 2
    assert nvidia.verify(nvidia.case(manifests={}), {"rim": "ANY"}).tier.name == "WARNING"


def test_gpu_03_a_difference_decides_although_a_document_is_missing() -> None:
    only = {"driver": nvidia.device().manifests()["driver"]}

    case = nvidia.case(manifests=only, measurements={7: b"\x01" * 48})
    assert nvidia.codes(case) == ["not_acceptable.measurement"]
    assert nvidia.codes(nvidia.case(manifests=only)) == ["endorsements_missing.rim"]


def test_gpu_03_an_index_in_both_documents_is_a_conflict() -> None:
    both = nvidia.device().manifests()
    both["driver"] = replace(
        both["driver"], golden={**both["driver"].golden, 0: (nvidia.device().measurements[0],)}
    )

    assert nvidia.codes(nvidia.case(manifests=both)) == ["not_acceptable.rim_conflict"]


def test_gpu_03_documents_in_which_nothing_counts_prove_nothing() -> None:
    none = {
        kind: replace(one, inactive=tuple(one.golden)) for kind, one in nvidia.device().manifests().items()
    }

    assert nvidia.codes(nvidia.case(manifests=none)) == ["not_acceptable.measurement"]


@pytest.mark.parametrize("kind", ["driver", "vbios"])
def test_gpu_03_each_document_must_vouch_for_a_measurement_of_its_own(kind: str) -> None:
    both = nvidia.device().manifests()
    silent = replace(both[kind], inactive=tuple(both[kind].golden))
    case = nvidia.case(manifests={**both, kind: silent})

    assert nvidia.codes(case) == ["not_acceptable.measurement"]
    outcomes = {check.name: check.outcome for check in nvidia.verify(case, {"rim": "ANY"}).claims.checks}
    assert outcomes["rim"] == "not checked"


def test_gpu_03_a_document_whose_only_value_is_left_out_vouches_for_nothing() -> None:
    device = nvidia.device()
    both = device.manifests()
    only = {**both, "driver": replace(both["driver"], golden={35: (device.measurements[35],)}, inactive=())}
    enabled, disabled = ({"nvdec0_status": status} for status in (b"\xaa", b"\x55"))

    assert nvidia.verify(nvidia.case(manifests=only, fields=enabled)).tier.name == "AFFIRMING"
    assert nvidia.codes(nvidia.case(manifests=only, fields=disabled)) == ["not_acceptable.measurement"]


@pytest.mark.parametrize("tag_id", ["00", "ff"])
def test_gpu_03_a_document_without_values_hides_no_difference_from_another(tag_id: str) -> None:
    device = nvidia.device()
    one = device.manifests()["driver"]
    silent = replace(one, inactive=tuple(one.golden), tag_id=tag_id * 48)
    extra = (EvidencePart("nvidia-rim", silent.sign(device.signer)),)

    assert nvidia.verify(nvidia.case(extra=extra)).tier.name == "AFFIRMING"
    altered = nvidia.case(extra=extra, measurements={7: b"\x01" * 48})
    assert nvidia.codes(altered) == ["not_acceptable.measurement"]
    shown: Any = nvidia.verify(altered, {"rim": "ANY"}).to_json()["claims"]
    assert shown["rim"]["mismatched"] == "7"


def test_gpu_03_of_several_documents_for_one_version_one_that_matches_is_enough() -> None:
    device = nvidia.device()
    old = replace(device.manifests()["driver"], golden={7: (b"\x02" * 48,)}, inactive=())
    extra = EvidencePart("nvidia-rim", old.sign(device.signer))

    assert nvidia.verify(nvidia.case(extra=(extra,))).tier.name == "AFFIRMING"


def _resigned(kind: str, **changes: Any) -> nvidia.Case:
    """A case in which one document is signed under other certificates."""
    device = nvidia.device()
    other = platform(changes=changes)
    documents = {key: one.sign(device.signer) for key, one in device.manifests().items()}
    documents[kind] = device.manifests()[kind].sign(other.signer)
    given = tuple(EvidencePart("nvidia-rim", data) for data in documents.values())
    return replace(nvidia.case(), documents=given)


@pytest.mark.parametrize("role", ["rim ca", "rim signer"])
def test_gpu_03_a_document_out_of_date_is_missing_not_false(role: str) -> None:
    start, end = nvidia.AT - timedelta(days=1), nvidia.AT + timedelta(days=1)
    case = _resigned("driver", **{role: {"not_before": start, "not_after": end}})

    result = nvidia.verify(case, at=end)
    assert (result.tier.name, result.claims.expires) == ("AFFIRMING", end)
    for when in (start - timedelta(seconds=1), end + timedelta(seconds=1)):
        assert nvidia.codes(case, at=when) == ["endorsements_missing.rim_expired"]
        assert nvidia.verify(case, {"rim": "ANY"}, at=when).tier.name == "WARNING"


@pytest.mark.parametrize(
    ("role", "change", "code"),
    [
        ("rim signer", {"is_ca": True}, "not_genuine.wrong_usage"),
        ("rim signer", {"key_usage": frozenset({"crl_sign"})}, "not_genuine.wrong_usage"),
        ("rim ca", {"is_ca": False}, "not_genuine.wrong_usage"),
        (
            "rim signer",
            {
                "extensions": {
                    "2.5.29.37": Extension(critical=False, value=sequence(oid("1.3.6.1.5.5.7.3.9")))
                }
            },
            "not_genuine.wrong_usage",
        ),
    ],
)
def test_gpu_03_a_document_signed_by_a_key_for_something_else_is_refused(
    role: str, change: dict[str, Any], code: str
) -> None:
    assert nvidia.codes(_resigned("vbios", **{role: change})) == [code]


def test_gpu_03_a_document_of_a_root_that_is_not_pinned_is_refused() -> None:
    stranger = nvidia.device(world="another")
    documents = tuple(
        EvidencePart("nvidia-rim", one.sign(stranger.signer)) for one in nvidia.device().manifests().values()
    )

    case = replace(nvidia.case(), documents=documents)
    assert nvidia.codes(case) == ["not_genuine.untrusted_root"] * 2


def test_gpu_03_a_device_s_key_signs_no_documents() -> None:
    device = nvidia.device()
    documents = tuple(
        EvidencePart("nvidia-rim", one.sign(device.firmware)) for one in device.manifests().values()
    )
    roles = tuple(
        replace(nvidia.case().anchor, name=name, certificates=(der,))
        for name, der in zip(("device", "rim"), nvidia.case().anchor.certificates, strict=True)
    )

    found = nvidia.codes(replace(nvidia.case(), documents=documents), anchors=roles)
    assert found == ["not_genuine.untrusted_root"] * 2


def test_gpu_03_a_simulated_document_counts_for_no_genuine_device() -> None:
    real, simulated = nvidia.device(), nvidia.device(world="simulated")
    documents = tuple(
        EvidencePart("nvidia-rim", one.sign(simulated.signer)) for one in real.manifests().values()
    )
    case = replace(nvidia.case(), documents=documents)
    verifier = Verifier(nvidia.policy(), extra_anchors=(case.anchor, simulated.anchor), allow_simulated=True)

    with pytest.raises(NotGenuine) as caught:
        verifier.verify(case.evidence, at=nvidia.AT)

    assert caught.value.code == "not_genuine.untrusted_root"


# GPU-04: certificates


def test_gpu_04_the_certificates_of_another_gpu_are_refused() -> None:
    other = nvidia.device(serial=0x41AB_0000_0000_0000_99)
    case = nvidia.case(certificates=other.certificates)

    assert nvidia.codes(case) == ["not_genuine.bad_signature"]


def test_gpu_04_of_several_devices_certificates_none_may_have_signed() -> None:
    others = [nvidia.device(serial=0x41AB_0000_0000_0000_90 + index) for index in range(3)]
    certificates = tuple(der for other in others for der in other.certificates)

    assert nvidia.codes(nvidia.case(certificates=certificates)) == ["not_genuine.bad_signature"]
    with_own = (*certificates, *nvidia.device().certificates)
    assert nvidia.verify(nvidia.case(certificates=with_own)).tier.name == "AFFIRMING"


def test_gpu_04_firmware_that_is_not_the_certificate_s_is_refused() -> None:
    case = nvidia.case(fields={"fwid": bytes(48)})

    assert nvidia.codes(case) == ["not_genuine.identity_mismatch"]
    older = nvidia.verify(nvidia.case(fields={"fwid": None}))
    assert {check.name: check.outcome for check in older.claims.checks}["firmware id"] == "not checked"


def test_gpu_04_a_certificate_that_names_another_device_s_key_is_refused() -> None:
    other = nvidia.device(serial=0x41AB_0000_0000_0000_99).firmware.issuer
    if other is None:
        raise TypeError
    firmware = sequence(oid(SHA384), tagged(0x04, nvidia.device().fwid))
    value = sequence(integer(1), other.key.public_key_der, firmware)
    made = platform(extensions={endorse.OID_COMPOSITE_DEVICE_ID: Extension(critical=False, value=value)})

    assert nvidia.codes(nvidia.case(made)) == ["not_genuine.identity_mismatch"]


@pytest.mark.parametrize(
    ("extensions", "code"),
    [
        ({endorse.OID_COMPOSITE_DEVICE_ID: None}, "endorsements_missing.certificate"),
        ({endorse.OID_SUBJECT_ALT_NAME: None}, "malformed.non_canonical"),
        (
            {endorse.OID_COMPOSITE_DEVICE_ID: Extension(critical=False, value=b"\x00" * 10 + bytes(48))},
            "malformed",
        ),
        (
            {endorse.OID_COMPOSITE_DEVICE_ID: Extension(critical=False, value=sequence(integer(2)))},
            "malformed.unsupported_version",
        ),
    ],
)
def test_gpu_04_a_certificate_without_its_extensions_is_refused(
    extensions: dict[str, Extension | None], code: str
) -> None:
    assert nvidia.codes(nvidia.case(platform(extensions=extensions)))[0].startswith(code)


@pytest.mark.parametrize(
    ("udi", "code"),
    [
        ("NVIDIA:XX100:48B02D0000000001", "not_genuine.unknown_product"),
        ("NVIDIA:GB300:48B02D0000000001", "not_genuine.unknown_product"),
        ("OTHER:GH100:48B02D0000000001", "malformed.non_canonical"),
        ("NVIDIA:GH100:48B02D00000000", "malformed.non_canonical"),
        ("NVIDIA:LS_10:48B02D0000000001", "not_genuine.identity_mismatch"),
    ],
)
def test_gpu_04_a_certificate_of_another_chip_is_refused(udi: str, code: str) -> None:
    assert nvidia.codes(nvidia.case(platform(udi=udi)))[0] == code


def _ocsp(case: nvidia.Case, **changes: Any) -> nvidia.Case:
    return replace(case, documents=(*case.documents, *case.platform.ocsp(nvidia.AT, **changes)))


def test_gpu_04_revocation_is_checked_where_responses_are_given_and_demanded_where_the_policy_says() -> None:
    strict = {"require_revocation": True}
    case = nvidia.case()

    assert nvidia.codes(case, top=strict) == ["endorsements_missing.ocsp"]
    assert nvidia.codes(_ocsp(case), top=strict, at=nvidia.AT + timedelta(days=1)) == [
        "endorsements_missing.ocsp_expired"
    ]
    result = nvidia.verify(_ocsp(case), top=strict)
    assert {check.outcome for check in result.claims.checks} == {"passed"}
    assert result.claims.expires == nvidia.AT.replace(hour=23, minute=59, second=59)


def test_gpu_04_a_response_for_part_of_the_chain_is_not_enough() -> None:
    case = nvidia.case()
    responses = case.platform.ocsp(nvidia.AT)
    for position in range(len(responses)):
        rest = tuple(one for index, one in enumerate(responses) if index != position)
        given = replace(case, documents=(*case.documents, *rest))
        assert "endorsements_missing.ocsp" in nvidia.codes(given, top={"require_revocation": True})
        assert nvidia.verify(given).tier.name == "AFFIRMING"


@pytest.mark.parametrize("position", range(5))
def test_gpu_04_a_revoked_certificate_is_refused_wherever_it_stands(position: int) -> None:
    case = nvidia.case()
    good, revoked = case.platform.ocsp(nvidia.AT), case.platform.ocsp(nvidia.AT, status="revoked")
    chosen = (*good[:position], revoked[position], *good[position + 1 :])
    given = replace(case, documents=(*case.documents, *chosen))

    assert set(nvidia.codes(given)) == {"not_genuine.revoked"}
    # Also beside a response that says the opposite, and when it is out of date.
    both = replace(given, documents=(*given.documents, good[position]))
    assert set(nvidia.codes(both)) == {"not_genuine.revoked"}
    assert set(nvidia.codes(given, at=nvidia.AT + timedelta(days=30))) == {"not_genuine.revoked"}
    if position >= 3:
        # Of a document's signer: that says nothing against a policy that does not ask for documents.
        assert nvidia.verify(given, {"rim": "ANY"}).tier.name == "WARNING"


def test_gpu_04_a_certificate_that_its_issuer_does_not_know_is_refused() -> None:
    assert "not_genuine.revocation_unknown" in nvidia.codes(_ocsp(nvidia.case(), status="unknown"))


def test_gpu_04_a_response_of_somebody_else_about_the_device_is_refused() -> None:
    stranger = nvidia.device(world="another").firmware
    issuer = stranger.issuer
    if issuer is None:
        raise TypeError
    forged = nvidia.device().ocsp(nvidia.AT, signing_key=issuer.key)
    case = nvidia.case()

    found = nvidia.codes(replace(case, documents=(*case.documents, *forged)))
    assert found[0] == "not_genuine.bad_signature"


def test_gpu_04_a_response_that_is_none_is_malformed() -> None:
    case = nvidia.case(extra=(EvidencePart("ocsp", b"\x30\x03\x0a\x01\x06"),))

    assert nvidia.codes(case) == ["malformed.unknown_format"]


@pytest.mark.parametrize(("kind", "most"), [("nvidia-rim", 32), ("ocsp", 64)])
def test_ev_14_more_documents_than_a_device_has_are_refused_unread(kind: str, most: int) -> None:
    case = nvidia.case()
    documents = tuple(EvidencePart(kind, b"\x00" * (1 + index)) for index in range(most + 1))

    assert nvidia.codes(replace(case, documents=documents)) == ["malformed.limit_exceeded"]
    assert nvidia.codes(replace(case, documents=documents[:most]))[0] in {
        "malformed.non_canonical",
        "malformed.truncated",
    }


# GPU-06: which devices, and how many


def test_gpu_06_a_device_that_the_policy_does_not_name_is_refused() -> None:
    case = nvidia.case()
    own = nvidia.verify(case).to_json()["claims"]
    assert isinstance(own, dict)

    assert nvidia.verify(case, {"device_ids": [own["device_id"]]}).vector.instance_identity == 2
    assert nvidia.codes(case, {"device_ids": ["41AB0000000000000200"[:18]]}) == ["not_acceptable.identity"]


def _composite(count: int = 2, *, twice: bool = False, **table: Any) -> tuple[Evidence, Verifier]:
    """Reports of several devices, the first of which stands for the platform."""
    devices = [
        nvidia.device(serial=0x41AB_0000_0000_0000_01 + (0 if twice else index)) for index in range(count)
    ]
    cases = [nvidia.case(device) for device in devices]
    given = Endorsements()
    for case in cases:
        given = given.merge(case.endorsements)
    parts = [EvidencePart("nvidia", case.report) for case in cases]
    evidence = Evidence(parts[0], tuple(parts[1:]), endorsements=given)
    verifier = Verifier(nvidia.policy(table), extra_anchors=(cases[0].anchor,))
    return evidence, verifier


def test_gpu_06_evidence_of_one_device_twice_is_refused() -> None:
    evidence, verifier = _composite(3, require_binding=False)
    assert verifier.verify(evidence, at=nvidia.AT).tee == "nvidia"

    evidence, verifier = _composite(3, twice=True, require_binding=False)
    with pytest.raises(ConfideError) as caught:
        verifier.verify(evidence, at=nvidia.AT)
    assert caught.value.code == "not_acceptable.identity"
