# SPDX-License-Identifier: Apache-2.0
"""Tokens and files of reference values on the command line, with the exit codes of refusals."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from confide.attestation import corim, ear, reference
from confide.attestation.policy import AppraisalPolicy
from confide.attestation.reference import ReferenceValues
from confide.attestation.tokens import wire
from confide.crypto.signing import SigningKey
from support import bundles, snp, tokens
from support.tokens import KINDS, NOW, Case, case

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import Confide

AT = "2026-06-01T12:00:00Z"


def files(folder: Path, given: Case, at: str = AT) -> tuple[str, ...]:
    """The arguments of `confide verify` for a case written to files."""
    table = {"tees": ["token"], **given.policy, "reference": {"token": given.table}}
    (folder / "policy.toml").write_text(AppraisalPolicy.from_table(table).to_toml())
    (folder / "token").write_bytes(given.data)
    arguments = ["verify", str(folder / "token"), "--policy", str(folder / "policy.toml"), "--at", at]
    for document in given.endorsements.documents:
        (folder / "keys.json").write_bytes(document.data)
        arguments += ["--endorsements", str(folder / "keys.json")]
    return tuple(arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_accepted_and_the_result_says_who_vouched(
    kind: str, confide: Confide, tmp_path: Path
) -> None:
    answer = confide(*files(tmp_path, case(kind)), "--json")
    assert answer.code == 0, answer.err
    shown = json.loads(answer.out)
    assert (shown["verdict"], shown["tee"]) == ("accepted", "token")
    assert shown["vouched_by"][0]["spki_sha256"] == case(kind).signer.pin


@pytest.mark.parametrize(
    ("change", "code", "exit_code"),
    [
        (lambda one: one.changed("exp", NOW), "not_genuine.expired", 3),
        (lambda one: one.changed("exp", "soon"), "malformed.non_canonical", 3),
        (lambda one: one.changed(header={"alg": "none"}), "not_genuine.unsupported_algorithm", 3),
        (lambda one: one.changed("aud", "you"), "not_acceptable.identity", 4),
        (lambda one: one.pinned(keys=["00" * 32]), "endorsements_missing.certificate", 5),
    ],
)
def test_a_refused_token_has_the_exit_code_of_its_story(
    change: Any, code: str, exit_code: int, confide: Confide, tmp_path: Path
) -> None:
    answer = confide(*files(tmp_path, change(case("ear"))), "--json")
    assert answer.code == exit_code
    assert json.loads(answer.out)["reasons"][0]["code"] == code


def _result() -> Any:
    nonce = b"\x10" * 32
    return bundles.verifier().verify(
        bundles.fresh(nonce), at=snp.AT, nonce=nonce, age=timedelta(0), purpose="channel", audience="client"
    )


def test_confide_s_own_results_are_recognised_in_both_forms(confide: Confide, tmp_path: Path) -> None:
    key = SigningKey.from_bytes(b"\x21" * 32)
    signer = tokens.Signer("EdDSA", key)
    options = {
        "developer": "me",
        "build": "1",
        "issuer": "https://verifier.example",
        "audience": "https://me.example",
    }
    for data in (ear.to_jwt(_result(), key, **options).encode(), ear.to_cwt(_result(), key, **options)):
        assert wire.recognises(data)
        given = replace(case("ear"), data=data).pinned(keys=[signer.pin], claims="ANY")
        arguments = files(tmp_path, given, snp.AT.isoformat())
        (tmp_path / "keys.json").write_bytes(signer.jwks())
        answer = confide(*arguments)
        assert answer.code == 0, answer.err
        assert "accepted: token" in answer.out


def test_inspect_shows_a_token_and_trusts_nothing(confide: Confide, tmp_path: Path) -> None:
    attacker = tokens.Signer.of("ES256", 9)
    (tmp_path / "token").write_text(attacker.jwt(tokens.EAR | {"x\x1b[31m": "a\x1b]0;title\x07"}))
    answer = confide("inspect", str(tmp_path / "token"))
    assert answer.code == 0
    assert "policy://acme/7" in answer.out
    assert "\x1b" not in answer.out
    assert "not verified" in answer.out + answer.err


@pytest.mark.parametrize("form", ["toml", "corim"])
def test_reference_values_fill_a_policy(form: str, confide: Confide, tmp_path: Path) -> None:
    case_ = snp.mint(version=5)
    measured = case_.evidence.platform.data[0x90:0xC0]
    values = (ReferenceValues("snp", {"measurement": (measured,)}, "release 7"),)
    data = reference.write(values) if form == "toml" else corim.write(values, identifier="release-7")
    (tmp_path / "values").write_bytes(data)
    (tmp_path / "evidence").write_bytes(case_.evidence.encode())
    (tmp_path / "policy.toml").write_text('tees = ["snp"]\n[reference.snp]\nmeasurement = "FILES"\n')
    anchor = snp.authority().anchor()
    blocks = [base64.encodebytes(der).decode() for der in anchor.certificates]
    pem = "".join(f"-----BEGIN CERTIFICATE-----\n{block}-----END CERTIFICATE-----\n" for block in blocks)
    (tmp_path / "root.pem").write_text(pem)
    arguments = (
        "verify",
        str(tmp_path / "evidence"),
        "--policy",
        str(tmp_path / "policy.toml"),
        "--at",
        snp.AT.isoformat(),
        "--allow-simulated",
        "--anchor",
        str(tmp_path / "root.pem"),
    )
    waiting = confide(*arguments, "--json")
    assert waiting.code == 2
    assert "--reference-values" in waiting.err + waiting.out

    filled = confide(*arguments, "--reference-values", str(tmp_path / "values"), "--json")

    assert filled.code == 0, filled.err
    assert json.loads(filled.out)["policy_digest"] != "00" * 32

    # Whoever gives a key wants a signature: the same values without one, or under another key, are refused.
    key, other = (SigningKey.from_bytes(bytes([number]) * 32) for number in (0x31, 0x32))
    text = base64.encodebytes(tokens.ED25519_SPKI + key.public).decode()
    (tmp_path / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n")
    plain = corim.write(values, identifier="release-7")
    for content, code in (
        (corim.sign(plain, key, signer="release"), 0),
        (corim.sign(plain, other, signer="release"), 2),
        (data, 2),
    ):
        (tmp_path / "values").write_bytes(content)
        asked = ("--reference-values", str(tmp_path / "values"), "--reference-key", str(tmp_path / "key.pem"))
        assert confide(*arguments, *asked).code == code
