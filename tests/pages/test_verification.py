# SPDX-License-Identifier: Apache-2.0
"""The page for a reviewer: everything that matters is on it, nothing in it runs or loads, and nobody writes into it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation.policy import AppraisalPolicy
from confide.attestation.result import refusal
from confide.attestation.verifier import Verifier
from confide.errors import ConfideError
from confide.pages import markup, verification
from confide.tees import formats
from support import snp

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

DIGEST = hashlib.sha256(b"evidence").digest()
POLICY = f"""# what we accept
tees = ["snp"]

[reference.snp]
measurement = ["{snp.MEASUREMENT.hex()}"]
min_tcb = {{ snp = 22 }}
"""
ATTACKS = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'; background: url(https://evil.example/x); '",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "<!-- ",
    "]]>",
    "javascript:alert(1)",
    "\u202egnp.exe\u200b",
    "\x00\x1b[31m",
    "&lt;b&gt;",
)
_VOID = frozenset({"meta"})
_TAGS = frozenset(
    {
        "html", "head", "meta", "title", "style", "body", "header", "section", "footer", "div", "span", "p", "h1", "h2", "h3",
        "ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "b", "em", "strong",
        "svg", "circle", "path", "line", "rect", "text",
    }
)  # fmt: skip
_ATTRIBUTES = frozenset(
    {
        "class", "lang", "charset", "name", "content", "http-equiv", "role", "tabindex", "scope", "colspan", "data-label",
        "aria-hidden", "aria-label", "viewbox", "cx", "cy", "r", "d", "fill", "stroke", "stroke-width", "stroke-linecap",
        "stroke-linejoin", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "text-anchor",
    }
)  # fmt: skip


class Reader(HTMLParser):
    """Reads a page as a browser would, and notes its elements, attributes and words."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page: str) -> str:
    return " ".join("".join(f"{word} " for word in read(page).words).split())


def outcome_of(
    case: snp.Minted, policy: str = POLICY, *, simulated: bool = False, at: datetime = snp.AT
) -> tuple[dict[str, object], str]:
    """The outcome of a real verification and its page."""
    parsed = AppraisalPolicy.from_toml(policy)
    verifier = Verifier(
        parsed,
        extra_anchors=(case.authority.anchor(simulated=simulated),),
        allow_simulated=simulated,
    )
    try:
        outcome = verifier.verify(case.evidence, at=at).to_json()
    except ConfideError as error:
        outcome = refusal(error)
    page = verification.render(
        outcome,
        evidence_fields=formats.explain(case.evidence),
        policy_text=parsed.to_toml(),
        evidence_digest=DIGEST,
        at=at,
    )
    return outcome, page


def render(outcome: Any, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "evidence_fields": {},
        "policy_text": POLICY,
        "evidence_digest": DIGEST,
        "at": snp.AT,
    }
    return verification.render(outcome, **(arguments | changes))


ACCEPTED, PAGE = outcome_of(snp.mint(version=5))


def test_an_accepted_page_says_what_was_proved_by_which_key_and_what_was_not() -> None:
    assert ACCEPTED["verdict"] == "accepted"
    shown = words(PAGE)

    assert "Accepted" in shown
    assert "AMD SEV-SNP" in shown
    for check in ACCEPTED["checks"]:  # type: ignore[attr-defined]
        assert check["name"] in shown
        assert check["detail"] in shown
    for voucher in ACCEPTED["vouched_by"]:  # type: ignore[attr-defined]
        assert voucher["spki_sha256"] in shown
    assert "the trusted root ARK-Genoa" in shown
    for reason in ACCEPTED["reasons"]:  # type: ignore[attr-defined]
        assert reason["code"] in shown
    assert "Checks that were not made" in shown
    assert DIGEST.hex() in shown
    assert str(ACCEPTED["policy_digest"]) in shown
    assert "# what we accept" in shown
    assert shown.count(snp.MEASUREMENT.hex()) == 5  # accepted, said, policy text, all claims, as it came
    assert "SIMULATED No hardware" not in shown  # The banner; the tests' own root says it in its name.


def test_security_versions_stand_beside_the_policys_least() -> None:
    row = re.search(r"component reported current .*? guest_svn", words(PAGE))

    assert row is not None
    assert "policy's least" in row[0]
    assert "snp 23 23 23 23 22" in row[0]


def test_a_simulated_page_says_so_first_in_capitals_and_never_plainly_accepted() -> None:
    outcome, page = outcome_of(snp.mint(version=5), simulated=True)
    assert outcome["simulated"] is True
    shown = words(page)

    assert shown.index("SIMULATED") < shown.index("Accepted")
    assert "Accepted, simulated" in shown
    assert "genuine" not in shown
    assert '<header class="contraindicated">' in page
    assert "<title>SIMULATED: " in page


def test_a_refusal_names_every_finding_with_its_code_and_what_to_do() -> None:
    outcome, page = outcome_of(snp.mint(version=5, report={"policy": 0xB0000, "vmpl": 1}))
    reasons: Any = outcome["reasons"]
    assert len(reasons) >= 2
    shown = words(page)

    assert "Not acceptable" in shown
    assert "Why it was refused" in shown
    for reason in reasons:
        assert reason["code"] in shown
        assert reason["hint"].replace("`", "") in shown.replace(" ,", ",") or "`" in reason["hint"]
    assert shown.index("Why it was refused") < shown.index("What was proved")
    assert "None of it is verified" not in shown


def test_a_measurement_that_is_not_accepted_stands_beside_those_that_are() -> None:
    other = bytes(range(1, 49))
    outcome, page = outcome_of(snp.mint(version=5, report={"measurement": other}))
    shown = words(page)

    assert outcome["verdict"] == "not_acceptable"
    row = shown[shown.index("the evidence says") : shown.index("The policy #")]
    assert row.index(snp.MEASUREMENT.hex()) < row.index(other.hex()) < row.index("not listed")
    assert "Evidence of AMD SEV-SNP Judged" in shown
    assert "the trusted root ARK-Genoa" in shown


def test_of_evidence_that_is_not_genuine_nothing_is_shown_as_verified() -> None:
    case = snp.mint(version=5)
    outcome, page = outcome_of(case.tamper(0x90, b"\xff"))
    shown = words(page)

    assert outcome["verdict"] == "not_genuine"
    assert "AMD SEV-SNP, by its own word" in shown
    assert "None of it is verified" in shown
    for heading in ("What was proved", "Who vouches for it", "All verified claims", "the evidence says"):
        assert heading not in shown
    # Even where a careless caller leaves claims in.
    careless = words(render(ACCEPTED | {"verdict": "not_genuine"}))
    assert "What was proved" not in careless
    assert "All verified claims" not in careless


def test_a_refusal_of_simulated_evidence_is_never_called_what_the_policy_asks_for() -> None:
    outcome, page = outcome_of(snp.mint(version=5, report={"vmpl": 2}), simulated=True)
    shown = words(page)

    assert (outcome["verdict"], outcome["simulated"]) == ("not_acceptable", True)
    assert shown.index("SIMULATED") < shown.index("Not acceptable, simulated")
    assert "It does not say what the policy asks for" in shown
    assert "Accepted" not in shown


@pytest.mark.parametrize(
    ("outcome", "title"),
    [
        ({"verdict": "not_genuine", "reasons": []}, "Not genuine"),
        ({"verdict": "undecided", "reasons": []}, "Undecided"),
        ({"verdict": "anything else"}, "Undecided"),
        ({}, "Undecided"),
        ({"verdict": None, "claims": 3, "parts": "x", "reasons": {"a": 1}, "checks": [None]}, "Undecided"),
    ],
)
def test_only_an_accepted_outcome_looks_accepted(outcome: dict[str, object], title: str) -> None:
    shown = words(render(outcome))

    assert title in shown
    assert "Accepted" not in shown
    assert "What was proved" not in shown


def test_the_policy_of_the_page_admits_its_own_style_and_nothing_else() -> None:
    style = re.search(r"<style>(.*?)</style>", PAGE, re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', PAGE)

    assert style is not None
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert html.unescape(policy[1]) == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert PAGE.index("Content-Security-Policy") < PAGE.index("<style>")
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_no_element_or_attribute_loads_or_runs_anything() -> None:
    for page in (PAGE, render({"verdict": "not_genuine", "reasons": [{"message": "x"}]})):
        reader = read(page)
        assert reader.tags <= _TAGS
        assert reader.attributes <= _ATTRIBUTES


def poison(value: Any, text: str) -> Any:
    """Every text of an outcome with something hostile after it, every name too."""
    if isinstance(value, dict):
        return {
            f"{name}{text}" if name.islower() and len(name) > 20 else name: poison(one, text)
            for name, one in value.items()
        } | {text: text}
    if isinstance(value, list):
        return [*(poison(one, text) for one in value), text, {text: [text]}]
    return (
        value + text
        if isinstance(value, str) and value not in {"accepted", "not_acceptable", "passed"}
        else value
    )


@pytest.mark.parametrize("text", ATTACKS)
def test_what_somebody_hostile_wrote_stays_text(text: str) -> None:
    fields = {
        "platform": {"format": text, text: text},
        "endorsements": {"certificates": [f"CN={text}, 2024-01-01 to 2030-01-01"]},
    }
    for outcome in (poison(ACCEPTED, text), poison(refusal(ConfideError("x", text, hint=text)), text)):
        page = render(outcome, evidence_fields=fields, policy_text=f'{text}\n[reference.snp]\n"a" = "{text}"')
        reader = read(page)

        assert reader.tags <= _TAGS
        assert reader.attributes <= _ATTRIBUTES
        assert (
            page.count("<style>")
            == page.count("</style>")
            == page.count("</title>") - page.count("<rect")
            == 1
        )
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "\0" not in page


@given(st.text(max_size=200).filter(lambda value: "\\u{" not in value))
def test_every_text_comes_out_as_it_went_in_or_visibly_escaped(value: str) -> None:
    page = markup.element("p", value)
    shown = "".join(read(page).words)

    assert re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: chr(int(found[1], 16)), shown) == value
    assert read(page).tags == {"p"}
    assert all(one.isprintable() or one == "\n" or unicodedata.category(one) == "Zs" for one in shown)


@pytest.mark.parametrize("blank", "\ufe0f\U000e0100\u3164\uffa0\u115f\u1160\u2800\u034f")
def test_a_name_with_characters_that_are_not_seen_does_not_look_like_another(blank: str) -> None:
    assert markup.text(f"AMD{blank}") == f"AMD\\u{{{ord(blank):x}}}"


def test_marks_do_not_pile_up_over_the_lines_around_them() -> None:
    """A stack of marks on one letter would be drawn over a verdict that stands above it."""
    assert markup.text("e\u0301 \u05e9\u05b8\u05c1\u0591") == "e\u0301 \u05e9\u05b8\u05c1\u0591"
    piled = markup.text("a" + "\u0301" * 200)
    assert piled == "a" + "\u0301" * 3 + "\\u{301}" * 197


def test_a_page_is_bounded_whatever_it_shows() -> None:
    deep: Any = "end"
    for _ in range(500):
        deep = {"a": deep}
    wide = {"x" * 10_000: "y" * 100_000, "many": ["z"] * 100_000, "keys": {str(n): n for n in range(50_000)}}

    page = render(ACCEPTED, evidence_fields={"deep": deep, "wide": wide})

    assert len(page) < 1_500_000
    shown = words(page)
    assert "nested more deeply than is shown" in shown
    assert "more characters" in shown
    assert "more entries are not shown" in shown
    assert "99000 more are not shown" in shown


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "x",
        "CN=a, 2024-02-31 to 2030-01-01",
        "CN=a, 2030-01-01 to 2024-01-01",
        None,
        5,
        "CN=a, 9999-12-31 to 9999-12-31",
    ],
)
def test_a_certificate_whose_times_cannot_be_read_is_left_out_of_the_drawing(listed: object) -> None:
    page = render(ACCEPTED, evidence_fields={"endorsements": {"certificates": [listed]}})

    assert page.count("<rect") == (2 if isinstance(listed, str) and "9999" in listed else 1)


def test_the_drawing_has_a_bar_for_each_certificate_and_for_the_verdict() -> None:
    certificates = ["CN=A, 2020-01-01 to 2030-01-01", "CN=B, 2021-01-01 to 9999-12-31"]
    page = render(ACCEPTED, evidence_fields={"endorsements": {"certificates": certificates}})

    assert page.count("<rect") == 3
    assert "judged for this time" in words(page)
    widths = [float(one) for one in re.findall(r'<rect x="[0-9.]+" y="[0-9.]+" width="([0-9.]+)"', page)]
    assert all(0 < width <= 900 for width in widths)


@pytest.mark.parametrize("expires", [None, "soon", "2030-01-01", 7, "2020-01-01T00:00:00+00:00"])
def test_a_verdict_whose_end_is_not_known_has_no_bar(expires: object) -> None:
    assert 'class="bar until"' in render(ACCEPTED)
    assert 'class="bar until"' not in render(ACCEPTED | {"expires": expires})


@pytest.fixture(scope="session")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine")
    return found


@pytest.mark.parametrize("kind", ["accepted", "simulated", "refused"])
def test_a_browser_shows_the_page_and_complains_of_nothing(browser: str, tmp_path: Path, kind: str) -> None:
    """The DOM that a real browser makes of it, with everything hostile in it, and the browser's console."""
    case = snp.mint(version=5, report={"vmpl": 2} if kind == "refused" else {})
    outcome, _ = outcome_of(case, simulated=kind == "simulated")
    attack = "".join(ATTACKS)
    page = tmp_path / "page.html"
    page.write_text(
        render(poison(outcome, attack), evidence_fields=poison(dict(formats.explain(case.evidence)), attack)),
        encoding="utf-8",
    )
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0",
        "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if ran.returncode != 0:
        pytest.skip("chromium cannot run on this machine")
    dom = ran.stdout.decode("utf-8")

    assert "CONSOLE" not in ran.stderr.decode("utf-8", "replace")
    titles = {"accepted": "Accepted", "simulated": "Accepted, simulated", "refused": "Not acceptable"}
    assert f"<h1>{titles[kind]}</h1>" in dom
    assert ('<div class="simulated-banner" role="alert"><strong>SIMULATED</strong>' in dom) == (
        kind == "simulated"
    )
    assert "<script" not in dom
    assert "<img" not in dom
    assert set(re.findall(r"<([a-zA-Z0-9]+)", dom)) <= _TAGS


def test_a_long_name_leaves_room_for_the_values_beside_it(browser: str, tmp_path: Path) -> None:
    """A column of names as wide as the page would leave none for the values, and so hide them all."""
    measured = render(
        ACCEPTED, evidence_fields={"platform": {"format": "snp", "W" * 3000: 1, "measurement": "ab" * 48}}
    )
    script = (
        "document.title = [...document.querySelectorAll('.tree > dl > dd, .unverified dd')]"
        ".map(one => Math.floor(one.clientWidth)).join(' ') + ' of ' + document.body.clientWidth"
    )
    # Only the test's copy may run a script: the page's own policy forbids it.
    loose = re.sub("<meta http-equiv[^>]*>", "", measured).replace(
        "</body>", f"<script>{script}</script></body>"
    )
    page = tmp_path / "page.html"
    page.write_text(loose, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if ran.returncode != 0:
        pytest.skip("chromium cannot run on this machine")
    found = re.search(rb"<title>([0-9 ]+) of ([0-9]+)</title>", ran.stdout)

    assert found is not None
    widths = [int(one) for one in found[1].split()]
    assert len(widths) >= 4
    assert min(widths) > int(found[2]) / 4


def test_the_page_is_the_same_for_the_outcome_as_json() -> None:
    assert render(json.loads(json.dumps(ACCEPTED))) == render(ACCEPTED)
    assert "2026-06-01 00:00:00 UTC" in words(render(ACCEPTED))
