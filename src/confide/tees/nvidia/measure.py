# SPDX-License-Identifier: Apache-2.0
"""Reference values of NVIDIA's firmware, as NVIDIA signs them: nothing of it can be computed from the outside.

What a device measures is NVIDIA's microcode, whose bytes are not published as they are measured. So a prediction is a reading of the
RIM documents for one driver and one VBIOS, verified like those that come with evidence. A policy seldom needs the result,
since ``rim = "required"`` has the documents compared with every report; it is for pinning values in ``measurements``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.attestation.reference import ReferenceValues
from confide.crypto import x509
from confide.errors import ConfigurationError
from confide.tees.nvidia import endorse, rim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from confide.attestation.anchors import TrustAnchor

__all__ = ["golden_values"]

_NVDEC0 = 35


def golden_values(
    documents: Sequence[bytes], *, at: datetime, anchors: tuple[TrustAnchor, ...] | None = None
) -> ReferenceValues:
    """The values of RIM documents (XML) for one device, by index, after their signatures have been verified at ``at``.

    Values of 48 bytes only, and not that of index 35, which NVIDIA's rules leave out on devices without NVDEC0. Raises
    MalformedError and NotGenuine as ``rim.Rim.verify``, and ``configuration.documents`` for documents that do not go together:
    of several products, two of a kind, or with the same index.
    """
    pinned = endorse.anchors() if anchors is None else anchors
    roots = tuple(
        x509.Certificate.from_der(der, long_times=True)
        for anchor in pinned
        if anchor.tee == "nvidia" and anchor.name != "device"
        for der in anchor.certificates
    )
    manifests = [rim.parse(document) for document in documents]
    if len({one.product for one in manifests}) != 1 or len({one.kind for one in manifests}) != len(manifests):
        raise ConfigurationError(
            "documents",
            "the RIM documents are not of one device",
            hint="give the driver's document and the VBIOS's, of the same product",
        )
    values: dict[str, tuple[bytes, ...]] = {}
    for one in manifests:
        one.verify(roots, at=at)
        for index, golden in one.active.items():
            if str(index) in values:
                raise ConfigurationError(
                    "documents", f"two RIM documents have values for the measurement {index}"
                )
            if index != _NVDEC0 and all(len(value) == 48 for value in golden.values):
                values[str(index)] = golden.values
    origin = ", ".join(f"{one.kind} {one.version}" for one in manifests)
    return ReferenceValues("nvidia", values, f"RIM documents of {manifests[0].product}: {origin}")
