# SPDX-License-Identifier: Apache-2.0
"""A small certification authority for attack tests: a passing chain, of which a test changes one field."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from confide.crypto import x509
from confide.crypto.issue import IssuingKey, issue, issue_crl

AT = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
FROM, UNTIL = AT - timedelta(days=365), AT + timedelta(days=365)
CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
NAMES = {"root": "Example Root", "intermediate": "Example Intermediate", "leaf": "Example Leaf"}
KEYS = {"root": 11, "intermediate": 12, "leaf": 13, "other": 14}


def key(name: str, curve: str = "p384") -> IssuingKey:
    """The same key for the same name in every run, so that tests are fast and reproducible."""
    return IssuingKey.from_scalar(KEYS.get(name) or 1000 + sum(name.encode()), curve=curve)


def certificate(
    role: str, signer: str, signing_key: IssuingKey | None = None, **changes: Any
) -> x509.Certificate:
    """A certificate of `role` signed by `signer`, with any argument of `issue` replaced."""
    arguments: dict[str, Any] = {
        "subject": NAMES.get(role, role),
        "issuer": NAMES.get(signer, signer),
        "public_key": key(role).public_key_der,
        "signing_key": signing_key or key(signer),
        "serial": 1 + sum(role.encode()),
        "not_before": FROM,
        "not_after": UNTIL,
        "is_ca": role != "leaf",
        "key_usage": frozenset({"digital_signature"}) if role == "leaf" else CA_USAGE,
    }
    return x509.Certificate.from_der(issue(**(arguments | changes)))


@dataclass
class Chain:
    """Root, intermediate and leaf; `changes` names what differs from the passing case, by role."""

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = certificate("root", "root", **self.changes.get("root", {}))
        self.intermediate = certificate("intermediate", "root", **self.changes.get("intermediate", {}))
        self.leaf = certificate("leaf", "intermediate", **self.changes.get("leaf", {}))

    def verify(self, **changes: Any) -> tuple[x509.Certificate, ...]:
        """Verify it at `AT`, with any argument of `verify_chain` replaced."""
        arguments: dict[str, Any] = {
            "leaf": self.leaf,
            "intermediates": [self.intermediate],
            "roots": [self.root],
            "at": AT,
        } | changes
        leaf, intermediates, roots = (arguments.pop(name) for name in ("leaf", "intermediates", "roots"))
        return x509.verify_chain(leaf, intermediates, roots, **arguments)


def chain(**changes: dict[str, Any]) -> Chain:
    """A chain whose named roles differ from the passing one."""
    return Chain(changes)


def crl(signer: str = "intermediate", signing_key: IssuingKey | None = None, **changes: Any) -> x509.Crl:
    """A CRL of `signer` that is valid at `AT`, with any argument of `issue_crl` replaced."""
    arguments: dict[str, Any] = {
        "issuer": NAMES.get(signer, signer),
        "signing_key": signing_key or key(signer),
        "this_update": AT - timedelta(days=1),
        "next_update": AT + timedelta(days=30),
    }
    return x509.Crl.from_bytes(issue_crl(**(arguments | changes)))
