# SPDX-License-Identifier: Apache-2.0
"""Which of a distribution's requirements hold for a named target (PEP 508, names and environment markers only).

Version specifiers are not looked at: what is installed, or locked, is measured whatever its version. A marker that this
module cannot decide is refused, never guessed, so that a closure is never too small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confide.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Requirement", "normalise", "parse_requirement"]

_NAME = re.compile(r"\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[^\]]*)\])?")
_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"[^\"\\]*\"|'[^'\\]*')|(?P<word>[A-Za-z_.]+)|(?P<operator>===|[<>=!~]=|[<>])|(?P<bracket>[()]))"
)
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*\Z")
_MAX_LENGTH = 4096
_VERSIONED = frozenset({"python_version", "python_full_version", "implementation_version"})


def normalise(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement: a normalised name, the extras asked of it, and the marker under which it holds ("": always)."""

    name: str
    extras: frozenset[str]
    marker: str

    def holds(self, environment: Mapping[str, str], extras: frozenset[str]) -> bool:
        """Whether the marker is true in ``environment`` for any of ``extras`` or for none.

        Raises ``ConfigurationError`` for a marker that cannot be decided.
        """
        if not self.marker:
            return True
        return any(
            _Marker(self.marker, {**environment, "extra": extra}).evaluate()
            for extra in sorted({"", *extras})
        )


def parse_requirement(text: str) -> Requirement:
    """The name, extras and marker of one ``Requires-Dist`` line; raises ``ConfigurationError`` for anything else."""
    match = _NAME.match(text)
    if match is None or len(text) > _MAX_LENGTH:
        raise _refuse("a requirement has no name")
    rest = text[match.end() :]
    # A direct reference (name @ url ; marker) needs a blank before its semicolon; the address is of no interest here.
    separator = " ;" if rest.lstrip().startswith("@") else ";"
    _, _, marker = rest.partition(separator)
    extras = frozenset(
        normalise(extra.strip()) for extra in (match["extras"] or "").split(",") if extra.strip()
    )
    return Requirement(normalise(match["name"]), extras, marker.strip())


def _refuse(problem: str) -> ConfigurationError:
    return ConfigurationError(
        "requires",
        f"the requirements of an installed distribution cannot be decided: {problem}",
        hint="name the distributions that it needs in the service's `requires` and report this",
        stage="manifest",
    )


class _Marker:
    """A recursive-descent evaluation of one marker: or, and, comparison, brackets."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._tokens: list[tuple[str, str]] = []
        offset = 0
        while text[offset:].strip():
            match = _TOKEN.match(text, offset)
            if match is None or match.lastgroup is None:
                raise _refuse("a marker is not well formed")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            offset = match.end()
        if sum(token == ("bracket", "(") for token in self._tokens) > 32:
            raise _refuse("a marker has too many brackets")
        self._tokens.append(("end", ""))

    def evaluate(self) -> bool:
        value = self._any()
        if self._tokens[0][0] != "end":
            raise _refuse("a marker goes on after its end")
        return value

    def _take(self, kind: str, value: str | None = None) -> str | None:
        found, text = self._tokens[0]
        if found != kind or (value is not None and text != value):
            return None
        self._tokens.pop(0)
        return text

    def _any(self) -> bool:
        value = self._all()
        while self._take("word", "or"):
            other = self._all()
            value = value or other
        return value

    def _all(self) -> bool:
        value = self._atom()
        while self._take("word", "and"):
            other = self._atom()
            value = value and other
        return value

    def _atom(self) -> bool:
        if self._take("bracket", "("):
            value = self._any()
            if not self._take("bracket", ")"):
                raise _refuse("a marker's bracket is not closed")
            return value
        left_name, left = self._operand()
        operator = self._take("operator")
        if operator is None:
            negated = self._take("word", "not") is not None
            if not self._take("word", "in"):
                raise _refuse("a marker has no comparison")
            operator = "not in" if negated else "in"
        right_name, right = self._operand()
        if "extra" in {left_name, right_name}:
            left, right = normalise(left), normalise(right)
        if {left_name, right_name} & _VERSIONED and operator not in {"in", "not in", "==="}:
            return _compare_versions(left, operator, right)
        return _compare_texts(left, operator, right)

    def _operand(self) -> tuple[str, str]:
        text = self._take("text")
        if text is not None:
            return "", text[1:-1]
        word = self._take("word")
        if word is None or word not in self._environment:
            raise _refuse("a marker names a variable that the target does not define")
        value = self._environment[word]
        return word, value


def _compare_texts(left: str, operator: str, right: str) -> bool:
    if operator in {"==", "==="}:
        return left == right
    if operator == "!=":
        return left != right
    if operator == "in":
        return left in right
    if operator == "not in":
        return left not in right
    raise _refuse("a marker orders texts")


def _compare_versions(left: str, operator: str, right: str) -> bool:
    # The target names Python's major and minor version only, so "3.11.*" is the most that is known of it.
    if operator in {"==", "!="} and right.endswith(".*"):
        right = right.removesuffix(".*")
        operator = f"{operator}*"
    for value in (left, right):
        if _VERSION.match(value) is None:
            raise _refuse("a marker compares a version that is not plain numbers")
    a, b = (tuple(int(part) for part in value.split(".")) for value in (left, right))
    if operator.endswith("*"):
        if len(b) > 2:
            raise _patch_version()
        return (a[: len(b)] == b) == (operator == "==*")
    if a[:2] == b[:2] and (any(a[2:]) or any(b[2:])):
        raise _patch_version()
    a, b = ((*value, 0, 0)[:2] for value in (a, b))
    results = {
        "==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "~=": a >= b and a[0] == b[0],
    }  # fmt: skip
    return results[operator]


def _patch_version() -> ConfigurationError:
    return _refuse("a marker depends on Python's patch version, which a target leaves open")
