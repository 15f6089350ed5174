# SPDX-License-Identifier: Apache-2.0
"""The sections of a page about one authenticated part: what was proved, by whose key, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confide.attestation.result import Tier
from confide.errors import ConfideError
from confide.pages.markup import Markup, code, element, join, table, text, tree, words

__all__ = [
    "all_claims",
    "check_item",
    "findings",
    "map_",
    "maps",
    "proof",
    "section",
    "subject_name",
    "tone",
]


def proof(verified: Mapping[str, object]) -> list[Markup]:
    """What was checked of one authenticated part, and who vouches for it."""
    return [
        section("What was proved", *_proved(verified)),
        section("Who vouches for it", *_chain(verified)),
    ]


def findings(
    verified: Mapping[str, object], policy: Mapping[str, object], *, accepted: bool = True
) -> list[Markup]:
    """What the part says beside what the policy asks for, its security versions, and what follows."""
    tee = str(verified.get("tee"))
    claims = map_(verified.get("claims"))
    found = [
        section(
            "What the policy asks for, and what the evidence says",
            *_against(claims, policy, tee, accepted=accepted),
        )
    ]
    levels = _levels(claims, policy, tee)
    if levels:
        found.append(section("Security versions", *levels))
    if verified.get("vector"):
        found.append(section("How far it may be trusted", _vector(verified)))
    return found


def all_claims(verified: Mapping[str, object], title: str) -> Markup:
    """Everything that the part says, verified."""
    return section(title, element("div", tree(map_(verified.get("claims"))), class_="tree"))


def _proved(verified: Mapping[str, object]) -> list[Markup]:
    checks = [check for check in maps(verified.get("checks")) if check.get("outcome") == "passed"]
    lead = element("p", "Each of these was checked, and holds:", class_="soft")
    return [lead, element("ul", *(check_item(check, "✓", "passed") for check in checks), class_="checks")]


def check_item(check: Mapping[str, object], mark: str, class_: str) -> Markup:
    """One check of authentication as an item of a list."""
    detail = check.get("detail")
    return element(
        "li",
        element("span", mark, class_=f"mark {class_}"),
        element(
            "div",
            element("b", check.get("name")),
            element("span", words(detail), class_="detail") if detail else "",
        ),
    )


def _chain(verified: Mapping[str, object]) -> list[Markup]:
    links = maps(verified.get("vouched_by"))
    if not links:
        return [element("p", "The keys are not listed for evidence of this kind.", class_="soft")]
    items = []
    for number, link in enumerate(links):
        role = "signed the evidence" if number == 0 else "signed the one above"
        if number == len(links) - 1:
            role = "the trusted root" if number else "signed the evidence; trusted by itself"
        items.append(
            element(
                "li",
                element("span", role, class_="role"),
                subject_name(str(link.get("name"))),
                element("span", "public key, SHA-256 ", class_="faint"),
                code(link.get("spki_sha256")),
            )
        )
    return [element("ol", *items, class_="chain")]


def subject_name(subject: str) -> Markup:
    """A distinguished name with the part first that tells people most."""
    parts = [part.strip() for part in subject.split(",")]
    common = next((part[3:] for part in parts if part.startswith("CN=")), subject)
    rest = ", ".join(part for part in parts if not part.startswith("CN="))
    if common == subject:
        return element("b", subject)
    return join(element("b", common), element("span", rest, class_="rest"))


def _against(
    claims: Mapping[str, object], policy: Mapping[str, object], tee: str, *, accepted: bool
) -> list[Markup]:
    """The policy's reference values beside the claims of the same name."""
    reference = map_(map_(policy.get("reference")).get(tee))
    rows: list[tuple[object, ...]] = []
    for name, wanted in reference.items():
        said = claims.get(
            name, claims.get(name.removeprefix("min_"), claims.get(f"reported_{name.removeprefix('min_')}"))
        )
        shown = element("strong", "any value is accepted") if wanted == "ANY" else tree(wanted, 1)
        known = element("span", "see all claims", class_="faint") if said is None else tree(said, 1)
        rows.append((name, shown, known) if accepted else (name, shown, known, _listed(wanted, said)))
    if not rows:
        return [element("p", "The policy has no reference values for this part.", class_="soft")]
    if not accepted:
        return [table(("policy key", "accepted", "the evidence says", ""), rows, class_="stack")]
    note = "This list is the policy's; that the claims meet it is part of the verdict above."
    head = ("policy key", "accepted", "the evidence says")
    return [table(head, rows, class_="stack"), element("p", note, class_="soft")]


def _listed(wanted: object, said: object) -> Markup:
    """Whether a value is one of a list of them; of floors, flags and the like the findings tell."""
    if (
        not isinstance(wanted, list)
        or not isinstance(said, str)
        or not all(isinstance(one, str) for one in wanted)
    ):
        return text("")
    if said in wanted:
        return element("span", "listed", class_="chip affirming")
    return element("span", "not listed", class_="chip contraindicated")


def _levels(claims: Mapping[str, object], policy: Mapping[str, object], tee: str) -> list[Markup]:
    """Every map of security versions among the claims as one table, and the vendor's words on them."""
    columns = {
        name: value
        for name, value in claims.items()
        if "tcb" in name
        and isinstance(value, Mapping)
        and value
        and all(type(one) is int for one in value.values())
    }
    others = {
        name: value
        for name, value in claims.items()
        if name not in columns
        and any(part in name for part in ("tcb", "advisor", "svn"))
        and value not in (None, [], {})
    }
    found = []
    if columns:
        components = dict.fromkeys(component for value in columns.values() for component in value)
        floor = map_(map_(map_(policy.get("reference")).get(tee)).get("min_tcb"))
        if any(type(one) is not int for one in floor.values()):
            floor = {}  # By product line: shown with the policy.
        head = ["component", *(name.replace("_tcb", "").replace("_", " ") for name in columns)]
        rows: list[list[object]] = [
            [component, *(value.get(component) for value in columns.values())] for component in components
        ]
        if floor:
            head.append("policy's least")
            rows = [[*row, floor.get(str(row[0]))] for row in rows]
        found.append(table(head, rows, class_="numbers"))
    if others:
        found.append(element("div", tree(others), class_="tree"))
    return found


def _vector(verified: Mapping[str, object]) -> Markup:
    cells = []
    for name, value in map_(verified.get("vector")).items():
        if type(value) is not int:
            continue
        try:
            tier = Tier.of(value).name.lower()
        except ConfideError:
            tier = "none"
        shown = "not appraised" if tier == "none" else tier
        cells.append(
            element(
                "li",
                element("b", name.replace("-", " ")),
                element("span", f"{shown} ({value})"),
                class_=tone(tier),
            )
        )
    return element("ul", *cells, class_="vector")


def section(title: str, *content: object) -> Markup:
    """A section with its heading."""
    return element("section", element("h2", title), *content)


def tone(tier: str) -> str:
    """The class that colours a tier."""
    return tier if tier in {"affirming", "warning", "contraindicated"} else "none"


def map_(value: object) -> Mapping[str, object]:
    """A value that should be a map, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def maps(value: object) -> Sequence[Mapping[str, object]]:
    """The maps in a value that should be a list of them."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []
