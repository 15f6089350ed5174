# SPDX-License-Identifier: Apache-2.0
"""``KeyBroker``: the key broker as a service to launch or to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.broker.settings import BrokerSettings
from confide.enclave.service import Limits, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confide.attestation.anchors import TrustAnchor
    from confide.broker.limits import Rate

__all__ = ["KeyBroker"]


class KeyBroker(Service):
    """A broker that keeps keys and policies for its owners and releases them as leases to attested enclaves.

        broker = KeyBroker("keys.example", owners=[identity.public])
        with Enclave.launch(broker, tee="simulated", storage=Path("broker")) as enclave: ...

    ``owners`` are the Ed25519 public keys (32 bytes each) that may keep secrets here; None lets every key keep secrets of
    its own. ``anchors`` and ``allow_simulated`` are the two consents to release to enclaves on a simulated TEE.
    ``allow_unanchored`` releases after a restart although nothing vouches for the database being the newest. All of it is
    measured: whoever verifies the broker sees it in the manifest. The root key of the database is derived in the TEE for
    this measurement, so a broker that is measured otherwise cannot read the database.
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,  # noqa: A002 - the field of every service
        *,
        owners: Iterable[bytes] | None,
        anchors: Iterable[TrustAnchor] = (),
        allow_simulated: bool = False,
        allow_unanchored: bool = False,
        challenge_seconds: int = 60,
        peer_rate: Rate | None = None,
        evidence_rate: Rate | None = None,
        release_rate: Rate | None = None,
        limits: Limits | None = None,
        debug: bool = False,
    ) -> None:
        rates = {"peer_rate": peer_rate, "evidence_rate": evidence_rate, "release_rate": release_rate}
        settings = BrokerSettings(
            owners=None if owners is None else frozenset(owners),
            anchors=tuple(anchors),
            allow_simulated=allow_simulated,
            allow_unanchored=allow_unanchored,
            challenge_seconds=challenge_seconds,
            **{name: rate for name, rate in rates.items() if rate is not None},
        )
        options = settings.to_options()
        BrokerSettings.from_options(options)  # What the broker would refuse inside is refused here.
        super().__init__(kind="broker", id=id, options=options, limits=limits or Limits(), debug=debug)
