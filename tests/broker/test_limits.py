# SPDX-License-Identifier: Apache-2.0
"""Rates, challenges and the measured configuration of the broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.attestation.anchors import TrustAnchor
from confide.broker.limits import Buckets, Rate
from confide.broker.service import KeyBroker
from confide.broker.settings import BrokerSettings
from confide.enclave.service import Service
from confide.errors import BrokerError, ConfigurationError
from support.broker_world import FakeClock
from support.refusal import code_of

OWNER = b"\x01" * 32


def allowed(buckets: Buckets, key: object) -> bool:
    try:
        buckets.take(str(key))
    except BrokerError as error:
        return error.code != "broker.rate_limited"
    return True


@given(
    burst=st.integers(1, 8),
    per_minute=st.integers(1, 120),
    steps=st.lists(st.floats(0, 90, allow_nan=False), max_size=40),
)
def test_no_more_is_let_through_than_the_rate_allows(burst: int, per_minute: int, steps: list[float]) -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(burst, per_minute), monotonic=clock)
    began, passed = clock.now, 0
    for step in steps:
        clock.now += step
        passed += allowed(buckets, "one")
        assert passed <= burst + (clock.now - began) * per_minute / 60 + 1e-6


def test_a_patient_peer_is_always_let_through() -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(1, 6), monotonic=clock)
    for _ in range(50):
        assert allowed(buckets, "one")
        clock.now += 10.01


def test_kb_19_inventing_peers_takes_bounded_memory_and_is_no_way_around_the_rate() -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(2, 6), monotonic=clock, limit=10)
    assert sum(allowed(buckets, number) for number in range(1000)) == 10 + 2
    assert len(buckets._levels) <= 11
    assert allowed(buckets, 3)  # Whoever was known before keeps a bucket.
    clock.now += 3600
    assert sum(allowed(buckets, f"later {number}") for number in range(1000)) <= 10 + 2
    assert len(buckets._levels) <= 12


def test_a_clock_that_goes_backwards_gives_nothing() -> None:
    clock = FakeClock()
    buckets = Buckets(Rate(1, 60), monotonic=clock)
    assert allowed(buckets, "one")
    clock.now -= 500
    assert not allowed(buckets, "one")


ANCHOR = TrustAnchor("snp", "Simulated", (b"one", b"two"), simulated=True)


def test_the_options_say_everything_and_read_back_equal() -> None:
    settings = BrokerSettings(
        owners=frozenset({OWNER, b"\x02" * 32}),
        allow_unanchored=True,
        allow_simulated=True,
        anchors=(ANCHOR,),
        challenge_seconds=30,
        peer_rate=Rate(1, 2),
        evidence_rate=Rate(3, 4),
        release_rate=Rate(5, 6),
    )
    assert BrokerSettings.from_options(settings.to_options()) == settings
    everybody = BrokerSettings(owners=None)
    assert BrokerSettings.from_options(everybody.to_options()) == everybody


def test_what_is_dangerous_is_off_unless_spelled() -> None:
    settings = BrokerSettings.from_options({"owners": [OWNER.hex()]})
    assert (settings.allow_unanchored, settings.allow_simulated, settings.anchors) == (False, False, ())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"owners": []},
        {"owners": "any"},
        {"owners": ""},
        {"owners": None},
        {"owners": ["xx"]},
        {"owners": [OWNER]},
        {"owners": [OWNER.hex().upper().replace("0", "A")]},
        {"owners": [OWNER.hex(), OWNER.hex()]},
        {"owners": [OWNER.hex()[:-2]]},
        {"owners": [OWNER.hex()], "allow_unanchord": True},
        {"owners": [OWNER.hex()], "allow_unanchored": 1},
        {"owners": [OWNER.hex()], "anchors": [{}]},
        {"owners": [OWNER.hex()], "anchors": ["x"]},
        {
            "owners": [OWNER.hex()],
            "anchors": [{"tee": "snp", "name": "x", "certificates": [], "simulated": True}],
        },
        {"owners": [OWNER.hex()], "peer_rate": {"burst": 0, "per_minute": 1}},
        {"owners": [OWNER.hex()], "peer_rate": {"burst": 1}},
        {"owners": [OWNER.hex()], "challenge_seconds": 3600},
    ],
)
def test_options_that_do_not_read_are_refused(options: dict[str, Any]) -> None:
    assert code_of(BrokerSettings.from_options, options).startswith("configuration.")


def test_a_broker_is_a_service_whose_file_says_the_same(tmp_path: Any) -> None:
    broker = KeyBroker(
        "keys.example", owners=[OWNER], anchors=[ANCHOR], allow_simulated=True, release_rate=Rate(5, 6)
    )
    file = tmp_path / "service.toml"
    file.write_text(broker.to_toml())
    again = Service.from_toml(file)
    assert again.configuration() == broker.configuration()
    assert Service.from_configuration(broker.configuration()).configuration() == broker.configuration()
    assert KeyBroker("keys.example", owners=None).options["owners"] == "ANY"


def test_a_broker_for_nobody_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError):
        KeyBroker("keys.example", owners=[])
