# SPDX-License-Identifier: Apache-2.0
"""The verdict on a piece of evidence as one page for a reviewer, who may have nothing but a browser.

A record, not evidence: it says what was decided, from what, and what was not looked at. It decides nothing anew. No script
runs in it and it loads nothing.
"""

from __future__ import annotations

import hashlib
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Final

from confide.pages import timeline, verified
from confide.pages.markup import Markup, code, document, element, join, table, tree, words
from confide.pages.verified import check_item, map_, maps, section, tone

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["render"]

_TEES: Final = {
    "snp": "AMD SEV-SNP",
    "tdx": "Intel TDX",
    "sgx": "Intel SGX",
    "nitro": "AWS Nitro Enclaves",
    "tpm": "TPM 2.0",
    "nvidia": "NVIDIA GPU",
    "token": "another verifier's token",
}
_VERDICTS: Final = {
    "accepted": ("Accepted", "The evidence is genuine, and it says what the policy asks for."),
    "not_genuine": (
        "Not genuine",
        "The evidence was not made by the hardware it names, or cannot be read. Nothing in it may be believed.",
    ),
    "not_acceptable": (
        "Not acceptable",
        "The evidence is genuine, but it describes something that the policy does not accept.",
    ),
    "undecided": ("Undecided", "Nothing could be decided: something that a vendor has to say is missing."),
}
_TIERS: Final = {
    "affirming": "nothing that was appraised speaks against it",
    "warning": "acceptable under this policy, with what is listed under “What was not proved”",
    "contraindicated": "something speaks against trusting it",
    "none": "nothing was appraised",
}
_BINDINGS: Final = {
    "bound": "Its evidence is seen to belong to the platform's. That both sit in one machine is not shown by it.",
    "unproven": "Nothing shows that it belongs to the platform: it may be a device of another machine.",
}
_MARKS: Final = {
    "accepted": "M13 25l8 8 15-18",
    "not_genuine": "M15 15l18 18M33 15L15 33",
    "not_acceptable": "M15 15l18 18M33 15L15 33",
    "undecided": "M24 13v14M24 34v.5",
    "simulated": "M24 13v14M24 34v.5",
}


def render(
    outcome: Mapping[str, object],
    *,
    evidence_fields: Mapping[str, object],
    policy_text: str,
    evidence_digest: bytes,
    at: datetime,
) -> str:
    """The page, as HTML.

    ``outcome`` is ``AttestationResult.to_json()`` or ``result.refusal(error)``, ``evidence_fields`` what
    ``tees.formats.explain`` says of the evidence, ``evidence_digest`` the SHA-256 of the file that was judged, ``at`` the time it was
    judged for. Every text in them may come from somebody hostile.
    """
    verdict = str(outcome.get("verdict"))
    simulated = outcome.get("simulated") is True
    title, _ = _VERDICTS.get(verdict, _VERDICTS["undecided"])
    accepted = verdict == "accepted"
    policy = _policy(policy_text)
    body: list[Markup] = []
    if simulated:
        body.append(_simulated())
    # What is refused as not acceptable is genuine all the same, and comes with what was authenticated.
    genuine = accepted or (verdict == "not_acceptable" and bool(outcome.get("claims")))
    claimed = "" if genuine else _claimed(evidence_fields)
    body.append(_head(outcome, verdict, evidence_digest, policy_text, at, claimed=claimed))
    devices = list(enumerate(maps(outcome.get("parts")), start=1)) if genuine else []
    shown_devices = [_device(part, number, policy, accepted=accepted) for number, part in devices]
    if accepted:
        body += verified.proof(outcome)
        body.append(_not_proved(outcome))
        body += verified.findings(outcome, policy)
        body += shown_devices
        body.append(_validity(outcome, evidence_fields, at))
    else:
        body.append(_refusal(outcome, verdict))
        if genuine:
            body += verified.findings(outcome, policy, accepted=False)
            body += verified.proof(outcome)
            body += shown_devices
    body.append(section("The policy", _policy_text(policy_text)))
    if genuine:
        body.append(verified.all_claims(outcome, "All verified claims"))
        body += [
            verified.all_claims(part, f"All verified claims of device {number}") for number, part in devices
        ]
    if evidence_fields:
        body.append(_decoded(evidence_fields, genuine=genuine))
    body.append(_foot())
    return document(
        *body,
        title=f"{'SIMULATED: ' if simulated else ''}{title} - attestation evidence {evidence_digest.hex()[:12]}",
        style=_style(),
        description="What a piece of attestation evidence proves, and what it does not",
    )


def _style() -> str:
    return resources.files("confide.pages").joinpath("verification.css").read_text(encoding="utf-8")


def _simulated() -> Markup:
    return element(
        "div",
        element("strong", "SIMULATED"),
        "No hardware protects this enclave: whoever owns the machine can read everything in it. Everything below was proved "
        "about a program on an ordinary computer, against a root key that this computer made for itself.",
        class_="simulated-banner",
        role="alert",
    )


def _claimed(fields: Mapping[str, object]) -> str:
    """What refused evidence says it is."""
    format_ = map_(fields.get("platform")).get("format")
    return "" if format_ is None else f"{_tee(format_, simulated=False)}, by its own word"


def _head(
    outcome: Mapping[str, object],
    verdict: str,
    digest: bytes,
    policy_text: str,
    at: datetime,
    *,
    claimed: str,
) -> Markup:
    title, sentence = _VERDICTS.get(verdict, _VERDICTS["undecided"])
    simulated = outcome.get("simulated") is True
    if simulated:
        title = f"{title}, simulated"
        says = (
            "says what the policy asks for"
            if verdict == "accepted"
            else "does not say what the policy asks for"
        )
        sentence = f"It {says}, and proves nothing about hardware."
    tier = str(outcome.get("tier"))
    chips: list[object] = []
    if outcome.get("tier") is not None:
        chips.append(element("span", f"tier: {tier}", class_=f"chip {tone(tier)}"))
    if simulated:
        chips.append(element("span", "simulated", class_="chip contraindicated"))
    facts: list[tuple[str, object]] = [
        ("Evidence of", claimed or _tee(outcome.get("tee"), simulated=simulated)),
        ("Judged for the time", _time(at)),
    ]
    if verdict == "accepted":
        facts += [("Freshness", _freshness(outcome)), ("Devices", len(maps(outcome.get("parts"))))]
    explained = _TIERS.get(tier, "")
    return element(
        "header",
        element("p", "Attestation evidence", class_="eyebrow"),
        element(
            "div",
            _mark("simulated" if simulated else verdict),
            element("h1", title),
            *chips,
            class_="verdict",
        ),
        element("p", sentence),
        element("p", f"Tier {tier}: {explained}.", class_="soft") if explained else "",
        element(
            "dl",
            *(element("div", element("dt", name), element("dd", value)) for name, value in facts),
            class_="facts",
        ),
        element(
            "dl",
            element("div", element("dt", "SHA-256 of the evidence file"), element("dd", code(digest.hex()))),
            element(
                "div",
                element("dt", "SHA-256 of the policy"),
                element(
                    "dd",
                    code(outcome.get("policy_digest") or hashlib.sha256(policy_text.encode()).hexdigest()),
                ),
            ),
            class_="facts",
        ),
        class_="contraindicated" if simulated else verdict if verdict in _VERDICTS else "undecided",
    )


def _mark(verdict: str) -> Markup:
    path = _MARKS.get(verdict, _MARKS["undecided"])
    return Markup(
        '<svg viewBox="0 0 48 48" aria-hidden="true"><circle cx="24" cy="24" r="22" fill="none" stroke="currentColor" '
        f'stroke-width="3"/><path d="{path}" fill="none" stroke="currentColor" stroke-width="4" stroke-linecap="round" '
        'stroke-linejoin="round"/></svg>'
    )


def _device(
    part: Mapping[str, object], number: int, policy: Mapping[str, object], *, accepted: bool
) -> Markup:
    simulated = part.get("simulated") is True
    name = _tee(part.get("tee"), simulated=simulated)
    binding = str(part.get("binding"))
    lead = element(
        "section",
        element("p", f"Device {number}", class_="eyebrow"),
        element("h2", name),
        element("p", element("strong", binding), ". ", _BINDINGS.get(binding, "")) if accepted else "",
        class_=tone(str(part.get("tier"))),
    )
    return join(lead, *verified.proof(part), *verified.findings(part, policy, accepted=accepted))


def _not_proved(outcome: Mapping[str, object]) -> Markup:
    open_checks = [
        check_item({**check, "name": join(where, str(check.get("name")))}, "○", "open")
        for where, part in (
            ("", outcome),
            *((f"device {number}: ", one) for number, one in enumerate(maps(outcome.get("parts")), start=1)),
        )
        for check in maps(part.get("checks"))
        if check.get("outcome") != "passed"
    ]
    notes = [_finding(reason, "warning") for reason in maps(outcome.get("reasons"))]
    limits = (
        "Attacks on the hardware itself leave no trace in evidence: a probe on the memory bus, a stolen key, an open flaw.",
        "The evidence is about the moment in which it was made. What ran afterwards is not in it.",
        "That the measured program is a good one: the policy names it, and whoever wrote the policy answers for it.",
    )
    content: list[object] = [*notes]
    if open_checks:
        content += [element("h3", "Checks that were not made"), element("ul", *open_checks, class_="checks")]
    content += [
        element("h3", "What no evidence shows"),
        element("ul", *(element("li", one) for one in limits)),
    ]
    return section("What was not proved", *content)


def _refusal(outcome: Mapping[str, object], verdict: str) -> Markup:
    findings = [_finding(reason, verdict) for reason in maps(outcome.get("reasons"))]
    heading = "Why nothing could be decided" if verdict == "undecided" else "Why it was refused"
    count = (
        "One finding."
        if len(findings) == 1
        else f"{len(findings)} findings, the first of which gave the verdict."
    )
    return section(heading, element("p", count, class_="soft"), *findings)


def _finding(reason: Mapping[str, object], tone: str) -> Markup:
    hint = reason.get("hint")
    return element(
        "div",
        element("p", words(reason.get("message")), class_="message"),
        element("p", element("strong", "What to do: "), words(hint), class_="fix") if hint else "",
        element(
            "p", code(reason.get("code")), " at the stage ", element("em", reason.get("stage")), class_="meta"
        ),
        class_=f"finding {tone}",
    )


def _validity(outcome: Mapping[str, object], evidence_fields: Mapping[str, object], at: datetime) -> Markup:
    listed = map_(evidence_fields.get("endorsements")).get("certificates")
    drawing, rows = timeline.draw(listed if isinstance(listed, list) else [], outcome.get("expires"), at)
    sentence = "After the last moment shown in green something that this verdict rests on is no longer valid."
    return section(
        "For how long",
        drawing,
        element("p", sentence, class_="soft"),
        table(("what", "from", "until"), rows, class_="times"),
    )


def _decoded(fields: Mapping[str, object], *, genuine: bool) -> Markup:
    warning = (
        "The file as it was decoded, before anything was checked. What counts are the verified claims above."
        if genuine
        else "The file as it was decoded. None of it is verified: whoever made these bytes may have written anything."
    )
    return element(
        "section",
        element("h2", "The evidence as it came"),
        element("p", warning, class_="soft"),
        element("div", tree(fields), class_="tree"),
        class_="unverified",
    )


def _policy_text(policy_text: str) -> Markup:
    return element("pre", policy_text or "(empty)", tabindex="0")


def _policy(policy_text: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(policy_text)
    except (ValueError, RecursionError):
        return {}  # It is shown as it stands; that it is no policy is for the verdict to say.


def _foot() -> Markup:
    return element(
        "footer",
        "Made by ",
        code("confide verify"),
        ", offline. This page is a record of one verification and proves nothing by itself: anybody can write such a page. "
        "Who wants to know verifies the evidence again, with the policy above.",
    )


def _tee(value: object, *, simulated: bool) -> str:
    if value is None:
        return "not established"
    name = _TEES.get(str(value), str(value))
    return f"{name}, simulated" if simulated else name


def _freshness(outcome: Mapping[str, object]) -> str:
    age = outcome.get("age_seconds")
    word = str(outcome.get("freshness"))
    return f"{word}, {age:.0f} s old" if isinstance(age, int | float) and not isinstance(age, bool) else word


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
