# SPDX-License-Identifier: Apache-2.0
"""The roots that confide ships are NVIDIA's, byte for byte, and neither stands for the other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from confide.crypto import x509
from confide.tees.nvidia import endorse
from support import nvidia

if TYPE_CHECKING:
    from pathlib import Path

# SHA-256 over the DER certificates, as NVIDIA's own verifiers carry them.
PINS = {
    "device": "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
    "rim": "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
}


def test_ev_17_the_pinned_roots_are_the_vendors() -> None:
    shipped = {
        anchor.name: [hashlib.sha256(der).hexdigest() for der in anchor.certificates]
        for anchor in endorse.anchors()
    }

    assert shipped == {name: [digest] for name, digest in PINS.items()}
    assert not any(anchor.simulated for anchor in endorse.anchors())


def test_ev_17_the_roots_are_those_beside_the_checkout(shared: Path) -> None:
    files = {"device": "nvidia_device_identity_root.pem", "rim": "nvidia_rim_root.pem"}
    given = {
        name: tuple(one.der for one in x509.parse_pem((shared / "evidence" / "roots" / file).read_bytes()))
        for name, file in files.items()
    }

    assert {anchor.name: anchor.certificates for anchor in endorse.anchors()} == given


def test_ev_17_a_root_of_devices_is_none_of_documents_and_the_other_way_round() -> None:
    case = nvidia.case()
    device_root, rim_root = case.anchor.certificates
    as_devices = replace(case.anchor, name="device")
    as_documents = replace(case.anchor, name="rim")

    right = (
        replace(as_devices, certificates=(device_root,)),
        replace(as_documents, certificates=(rim_root,)),
    )
    assert nvidia.verify(case, anchors=right).tier.name == "AFFIRMING"
    wrong_rim = (replace(as_devices, certificates=(device_root, rim_root)),)
    assert nvidia.codes(case, anchors=wrong_rim) == ["not_genuine.untrusted_root"] * 2
    wrong_device = (replace(as_documents, certificates=(device_root, rim_root)),)
    assert nvidia.codes(case, anchors=wrong_device) == ["not_genuine.untrusted_root"]


def test_ev_17_a_look_alike_of_both_roots_is_refused() -> None:
    case = nvidia.case(nvidia.device(world="another"))

    assert nvidia.codes(case, anchors=(nvidia.case().anchor,)) == ["not_genuine.untrusted_root"]
