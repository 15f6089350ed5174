# SPDX-License-Identifier: Apache-2.0
"""A simulated device as the code inside an enclave sees it: an ``Attester`` over one inherited socket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import Endorsements, EvidencePart
from confide.errors import EnclaveError
from confide.simulator import messages
from confide.tees.snp.wire import decode_report
from confide.wire.fields import Fields

if TYPE_CHECKING:
    import socket

__all__ = ["SimulatedDevice"]


class SimulatedDevice:
    """Asks the device that measured this enclave. Thread-safe: one question at a time. ``timeout`` is in seconds."""

    def __init__(self, connection: socket.socket, *, timeout: float = 60.0) -> None:
        connection.settimeout(timeout)
        self._connection = connection
        self._lock = threading.Lock()
        self._number = 0

    def claim_level(self, level: int) -> None:
        """Say once, before any evidence, how this process is confined (0 to 3); evidence shows it as a claim.

        Raises ``enclave.bad_state`` when it has been said before.
        """
        self._ask({"ask": "level", "level": level}).end()

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """Evidence over exactly these 64 bytes, with the certificates and the CRL that verify it.

        Raises ``enclave`` errors when the device is gone, silent or refuses.
        """
        if len(report_data) != 64:
            raise EnclaveError("bad_state", "report data is exactly 64 bytes", stage="device")
        fields = self._ask({"ask": "attest", "report_data": report_data})
        report = fields.bytes_("report", 1184)
        certificates = tuple(fields.list_("certificates", 8))
        crls = tuple(fields.list_("crls", 8))
        fields.end()
        if not all(isinstance(item, bytes) for item in (*certificates, *crls)):
            raise EnclaveError("bad_state", "the simulated device gave no certificates", stage="device")
        if decode_report(report).report_data != report_data:
            raise EnclaveError("bad_state", "the simulated device signed other report data", stage="device")
        return PlatformEvidence(EvidencePart("snp", report), (), Endorsements(certificates, crls))

    def derive_key(self, label: bytes) -> bytes:
        """32 bytes for ``label`` (at most 256 bytes) that only this installation gives, and only to this measurement."""
        fields = self._ask({"ask": "derive", "label": label})
        key = fields.bytes_("key", 32)
        fields.end()
        return key

    def _ask(self, question: dict[str, object]) -> Fields:
        with self._lock:
            self._number += 1
            answer = messages.call(self._connection, question, number=self._number, limit=messages.MAX_WORKER)
        return Fields(answer, "device answer")
