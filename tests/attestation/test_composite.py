# SPDX-License-Identifier: Apache-2.0
"""Evidence of more than one device: what must be there, what belongs together, and what the result says about it."""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from typing import Any

import pytest

from confide.attestation import binding
from confide.attestation.attester import DeviceEvidence, PlatformEvidence, quote
from confide.attestation.evidence import Endorsements, Evidence, EvidencePart
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import Tier
from confide.attestation.verifier import Verifier
from confide.crypto.issue import IssuingKey
from confide.errors import AttestationError, ConfideError, ConfigurationError, EnclaveError
from confide.simulator import nvidia
from confide.simulator import tpm as simulated_tpm
from support import bundles, snp, tpm

NONCE = b"\x31" * 32
ASKED: dict[str, Any] = {
    "nonce": NONCE,
    "age": timedelta(seconds=2),
    "purpose": "channel",
    "audience": "client",
}
AT = tpm.AT
CPU = {"measurement": [snp.MEASUREMENT.hex()]}


@functools.cache
def gpu(number: int = 1) -> nvidia.Platform:
    return nvidia.Platform.create(serial=0x41AB_0000_0000_0000_00 + number)


def policy(tables: dict[str, Any], **top: Any) -> AppraisalPolicy:
    return AppraisalPolicy.from_table({"tees": list(tables), **top, "reference": tables})


def verifier(tables: dict[str, Any], *gpus: nvidia.Platform, **top: Any) -> Verifier:
    return Verifier(
        policy(tables, **top),
        extra_anchors=(snp.authority().anchor(), *(one.anchor for one in gpus or (gpu(),))),
        allow_simulated=True,
    )


def with_gpus(*gpus: nvidia.Platform, nonce: bytes | None = None, covered: bool = True) -> Evidence:
    """A bundle whose report covers the evidence of GPUs that answered the nonce made from its keys."""
    material = bundles.material(issued_at=int(AT.timestamp()) - 60).encode()
    leaf = binding.leaf(NONCE, material)
    reports = [one.evidence(nonce or binding.gpu_nonce(leaf)) for one in gpus]
    data = binding.report_data(leaf, [report for report, _ in reports] if covered else ())
    case = snp.mint(version=5, report={"report_data": data})
    endorsements = case.evidence.endorsements
    for _, own in reports:
        endorsements = endorsements.merge(own)
    return Evidence(
        case.evidence.platform,
        devices=tuple(EvidencePart("nvidia", report) for report, _ in reports),
        key_material=material,
        manifest=bundles.MANIFEST,
        proof=binding.batch_proofs([leaf])[0],
        endorsements=endorsements,
    )


def refusal(check: Any) -> list[str]:
    with pytest.raises(ConfideError) as caught:
        check()
    error = caught.value
    return [one.code for one in error.reasons] if isinstance(error, AttestationError) else [error.code]


def test_a_gpu_that_answered_the_keys_nonce_is_bound_and_in_the_result() -> None:
    bundle = Evidence.decode(with_gpus(gpu()).encode())

    result = verifier({"snp": CPU, "nvidia": {}}, service=bundles.SERVICE).verify(bundle, at=AT, **ASKED)

    assert [(part.tee, part.binding) for part in result.parts] == [("nvidia", "bound")]
    assert result.freshness == "fresh"
    assert result.key_material is not None
    assert result.tier is max(result.parts[0].tier, result.vector.tier)
    shown: Any = result.to_json()
    assert shown["parts"][0]["binding"] == "bound"
    assert len(shown["parts"][0]["vouched_by"]) > 2
    assert result.expires <= min(result.claims.expires, result.parts[0].claims.expires)


def test_gpu_05_a_gpus_report_for_other_keys_is_unproven_and_refused_unless_spelled() -> None:
    """Its bytes are covered by the CPU's report, but it answered somebody else's nonce: it may be relayed or old."""
    bundle = with_gpus(gpu(), nonce=b"\x77" * 32)

    assert refusal(
        lambda: verifier({"snp": CPU, "nvidia": {}}, service=bundles.SERVICE).verify(bundle, at=AT, **ASKED)
    ) == ["not_acceptable.channel"]
    result = verifier({"snp": CPU, "nvidia": {"require_binding": False}}, service=bundles.SERVICE).verify(
        bundle, at=AT, **ASKED
    )
    assert result.parts[0].binding == "unproven"
    assert "note.binding" in [reason.code for reason in result.reasons]


def test_gpu_05_raw_reports_side_by_side_are_unproven() -> None:
    report, endorsements = gpu().evidence(b"\x01" * 32)
    case = snp.mint(version=5)
    raw = Evidence(
        case.evidence.platform,
        devices=(EvidencePart("nvidia", report),),
        endorsements=case.evidence.endorsements.merge(endorsements),
    )

    assert refusal(lambda: verifier({"snp": CPU, "nvidia": {}}).verify(raw, at=AT)) == [
        "not_acceptable.channel"
    ]
    loose = verifier({"snp": CPU, "nvidia": {"require_binding": False}}).verify(raw, at=AT)
    assert loose.parts[0].binding == "unproven"


def test_gpu_05_evidence_of_a_gpu_that_the_report_does_not_cover_is_refused() -> None:
    bundle = with_gpus(gpu(), covered=False)

    codes = refusal(
        lambda: verifier({"snp": CPU, "nvidia": {}}, service=bundles.SERVICE).verify(bundle, at=AT, **ASKED)
    )
    assert codes[:2] == ["not_acceptable.nonce_mismatch", "not_acceptable.channel"]


def test_gpu_06_a_missing_a_doubled_and_a_surplus_gpu_are_refused() -> None:
    one, two = gpu(1), gpu(2)
    exactly = {"snp": CPU, "nvidia": {"count": 2}}

    def check(*there: nvidia.Platform) -> Any:
        return verifier(exactly, one, two, service=bundles.SERVICE).verify(with_gpus(*there), at=AT, **ASKED)

    assert [part.binding for part in check(one, two).parts] == ["bound", "bound"]
    assert refusal(lambda: check(one)) == ["not_acceptable.attributes"]
    assert refusal(lambda: check(one, one)) == ["not_acceptable.identity"]
    assert refusal(check) == ["not_acceptable.tee"]


def test_gpu_06_one_gpu_before_and_after_an_update_of_its_firmware_is_one_gpu() -> None:
    """The key that signs is the firmware's own; the one above it is the device's."""
    keys: dict[str, IssuingKey] = {}

    def key(role: str) -> IssuingKey:
        return keys.setdefault(role, IssuingKey.generate_p384())

    before = nvidia.Platform.create(key=key)
    del keys["firmware"]
    after = nvidia.Platform.create(key=key)
    assert before.firmware.certificate != after.firmware.certificate
    ready = verifier({"snp": CPU, "nvidia": {}}, before, after, gpu(2), service=bundles.SERVICE)

    assert len(ready.verify(with_gpus(before, gpu(2)), at=AT, **ASKED).parts) == 2
    assert refusal(lambda: ready.verify(with_gpus(before, after), at=AT, **ASKED)) == [
        "not_acceptable.identity"
    ]


def test_gpu_06_gpus_alone_are_counted_too() -> None:
    def alone(*there: nvidia.Platform) -> Evidence:
        made = [one.evidence(b"\x01" * 32) for one in there]
        endorsements = Endorsements()
        for _, own in made:
            endorsements = endorsements.merge(own)
        first, *others = (EvidencePart("nvidia", report) for report, _ in made)
        return Evidence(first, tuple(others), endorsements=endorsements)

    one, two = gpu(1), gpu(2)
    ready = verifier({"nvidia": {"count": 2}}, one, two)

    assert len(ready.verify(alone(one, two), at=AT).parts) == 1
    assert refusal(lambda: ready.verify(alone(one), at=AT)) == ["not_acceptable.attributes"]
    assert refusal(lambda: ready.verify(alone(one, one), at=AT)) == ["not_acceptable.identity"]


def test_ear_04_a_device_that_the_policy_names_must_be_there() -> None:
    case = snp.mint(version=5)

    for device in ("nvidia", "tpm"):
        table: dict[str, Any] = {"nvidia": {}, "tpm": {"pcr": "ANY"}}[device]
        assert refusal(lambda: verifier({"snp": CPU, device: table}).verify(case.evidence, at=AT)) == [  # noqa: B023
            "not_acceptable.tee"
        ]
        optional = verifier({"snp": CPU, device: table | {"required": False}})
        assert optional.verify(case.evidence, at=AT).parts == ()


def test_a_device_alone_is_accepted_only_where_no_cpu_is_named() -> None:
    report, endorsements = gpu().evidence(b"\x01" * 32)
    alone = Evidence(EvidencePart("nvidia", report), endorsements=endorsements)

    assert verifier({"nvidia": {}}).verify(alone, at=AT).tee == "nvidia"
    assert refusal(lambda: verifier({"nvidia": {}, "snp": CPU}).verify(alone, at=AT)) == [
        "not_acceptable.tee"
    ]


def test_a_gpu_alone_vouches_for_no_key() -> None:
    report, endorsements = gpu().evidence(b"\x01" * 32)
    bundle = dataclasses.replace(
        with_gpus(gpu()), platform=EvidencePart("nvidia", report), devices=(), endorsements=endorsements
    )

    assert refusal(lambda: verifier({"nvidia": {}}).verify(bundle, at=AT, nonce=NONCE)) == [
        "not_acceptable.channel"
    ]


@pytest.mark.parametrize(
    ("platform", "devices"),
    [
        ("snp", ("snp",)),
        ("snp", ("token",)),
        ("snp", ("tpm", "tpm")),
        ("tpm", ("tpm",)),
        ("token", ("nvidia",)),
        ("nvidia", ("tpm",)),
        ("snp", ("sev",)),
        ("sev", ()),
    ],
)
def test_parts_that_do_not_go_together_are_malformed(platform: str, devices: tuple[str, ...]) -> None:
    odd = Evidence(EvidencePart(platform, b"x"), devices=tuple(EvidencePart(name, b"x") for name in devices))

    assert refusal(lambda: verifier({"snp": CPU}).verify(odd, at=AT)) == ["malformed.unknown_format"]


def azure_bundle(*, qualifying: Any = binding.tpm_qualifying_data) -> Evidence:
    """A bundle whose keys are bound through the vTPM's quote, as on Azure."""
    material = bundles.material(issued_at=int(AT.timestamp()) - 60).encode()
    leaf = binding.leaf(NONCE, material)
    case = tpm.azure(extra_data=qualifying(binding.report_data(leaf)))
    return dataclasses.replace(
        case.bundle(),
        key_material=material,
        manifest=bundles.MANIFEST,
        proof=binding.batch_proofs([leaf])[0],
    )


PCRS = tpm.platform().pcrs["sha256"]
AZURE: dict[str, Any] = {
    "snp": CPU,
    "tpm": {"pcr": {"4": [PCRS[4].hex()], "9": [PCRS[9].hex()]}},
}


def test_on_azure_the_quote_carries_the_binding_and_the_report_vouches_for_its_key() -> None:
    result = verifier(AZURE, service=bundles.SERVICE).verify(azure_bundle().encode(), at=AT, **ASKED)

    assert (result.tee, result.freshness) == ("snp", "fresh")
    assert [(part.tee, part.binding) for part in result.parts] == [("tpm", "bound")]
    assert result.key_material is not None
    assert result.tier is not Tier.CONTRAINDICATED


def test_tpm_02_a_quote_that_carries_the_binding_itself_instead_of_its_hash_is_refused() -> None:
    bundle = azure_bundle(qualifying=lambda data: data[:32])

    codes = refusal(lambda: verifier(AZURE, service=bundles.SERVICE).verify(bundle, at=AT, **ASKED))
    assert codes == ["not_acceptable.nonce_mismatch", "not_acceptable.channel"]


def test_tpm_10_azures_report_without_its_quote_satisfies_no_policy_for_azure() -> None:
    stripped = dataclasses.replace(azure_bundle(), devices=())

    codes = refusal(lambda: verifier(AZURE, service=bundles.SERVICE).verify(stripped, at=AT, **ASKED))
    assert codes[0] == "not_acceptable.tee"
    assert "not_acceptable.nonce_mismatch" in codes


def test_azures_quote_is_refused_where_only_the_cpu_or_only_the_tpm_is_admitted() -> None:
    bundle = tpm.azure().bundle()

    for tables in ({"snp": AZURE["snp"]}, {"tpm": AZURE["tpm"]}):
        assert refusal(lambda: verifier(tables).verify(bundle, at=AT)) == ["not_acceptable.tee"]  # noqa: B023


def test_report_data_that_is_asked_of_a_tpm_is_its_qualifying_data_or_what_that_was_made_from() -> None:
    data = bytes(range(64))
    case = tpm.azure(extra_data=binding.tpm_qualifying_data(data)).bundle()
    ready = verifier(AZURE)

    for asked in (data, binding.tpm_qualifying_data(data)):
        assert ready.verify(case, at=AT, report_data=asked).verdict == "accepted"
    for asked in (data[:32], data + b"\0", binding.tpm_qualifying_data(data)[:-1], bytes(64)):
        assert refusal(lambda: ready.verify(case, at=AT, report_data=asked)) == ["not_acceptable.channel"]  # noqa: B023


def test_report_data_of_another_length_is_the_callers_error_for_a_cpu() -> None:
    with pytest.raises(ConfigurationError):
        verifier({"snp": CPU}).verify(snp.mint(version=5).evidence, at=AT, report_data=bytes(63))
    for length in (0, 1025):
        with pytest.raises(ConfigurationError):
            verifier({"snp": CPU}).verify(snp.mint(version=5).evidence, at=AT, report_data=bytes(length))


class Machine:
    """An attester with GPUs beside it, which remembers the order in which it was asked."""

    def __init__(self, *gpus: nvidia.Platform, beside: tuple[EvidencePart, ...] = ()) -> None:
        self.gpus, self.beside = gpus, beside
        self.asked: list[str] = []

    def device_evidence(self, nonce: bytes) -> DeviceEvidence:
        self.asked.append("devices")
        made = [one.evidence(nonce) for one in self.gpus]
        endorsements = Endorsements()
        for _, own in made:
            endorsements = endorsements.merge(own)
        return DeviceEvidence(tuple(EvidencePart("nvidia", report) for report, _ in made), endorsements)

    def attest(self, report_data: bytes) -> PlatformEvidence:
        self.asked.append("platform")
        case = snp.mint(version=5, report={"report_data": report_data})
        return PlatformEvidence(case.evidence.platform, self.beside, case.evidence.endorsements)

    def derive_key(self, label: bytes) -> bytes:
        raise NotImplementedError


def test_one_quote_covers_the_devices_which_are_asked_first() -> None:
    machine = Machine(gpu())
    material = bundles.material(issued_at=int(AT.timestamp()) - 60).encode()
    leaf = binding.leaf(NONCE, material)

    made = quote(machine, leaf)

    assert machine.asked == ["devices", "platform"]
    bundle = Evidence(
        made.platform,
        made.devices,
        key_material=material,
        manifest=bundles.MANIFEST,
        proof=binding.batch_proofs([leaf])[0],
        endorsements=made.endorsements,
    )
    ready = verifier({"snp": CPU, "nvidia": {}}, service=bundles.SERVICE)
    assert [part.binding for part in ready.verify(bundle, at=AT, **ASKED).parts] == ["bound"]


def test_a_device_that_comes_with_the_platform_uncovered_is_refused_inside() -> None:
    with pytest.raises(EnclaveError) as caught:
        quote(Machine(beside=(EvidencePart("nvidia", b"x"),)), bytes(64))

    assert caught.value.code == "enclave.bad_state"


def test_a_layout_that_no_real_sample_has_shown_is_said_to_be_unproven() -> None:
    part, endorsements = tpm.platform().evidence(bytes(32))
    alone = Evidence(EvidencePart("tpm", part), endorsements=endorsements)
    ready = Verifier(
        policy({"tpm": {"pcr": "ANY"}}),
        extra_anchors=(tpm.platform().anchor,),
        allow_simulated=True,
    )

    assert "note.unproven" in [reason.code for reason in ready.verify(alone, at=AT).reasons]
    assert simulated_tpm.AT == AT
