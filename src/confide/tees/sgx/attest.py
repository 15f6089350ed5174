# SPDX-License-Identifier: Apache-2.0
"""Ask for an SGX quote from inside an enclave that runs under Gramine, through /dev/attestation; derive its sealing keys.

The interface has one set of report data for the whole process, pads or cuts what is written to it, and makes the quote
when its file is opened: a lock covers both steps, lengths are exact here, and the quote's own report data are compared.
Source: Gramine, documentation, "Attestation and Secret Provisioning", and libos/src/fs/dev/attestation.c.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from confide.attestation.attester import PlatformEvidence
from confide.attestation.binding import REPORT_DATA_BYTES
from confide.attestation.evidence import EvidencePart
from confide.crypto import kdf
from confide.crypto.secret import Secret
from confide.errors import ConfideError, ConfigurationError, EnclaveError, TeeUnavailable
from confide.tees._dcap import quote

__all__ = ["Device", "Sealing"]

ATTESTATION: Final = Path("/dev/attestation")
_MAX_QUOTE: Final = 16 * 1024
_KEY_BYTES: Final = 16
_MAX_TYPE: Final = 32
# One for the process, as the interface's state is.
_LOCK: Final = threading.Lock()

Sealing = Literal["mrenclave", "mrsigner"]
"""Whose key seals: this enclave's alone, or that of every enclave of its signer and product with an equal or higher ISVSVN."""


@dataclass(frozen=True, slots=True)
class Device:
    """An enclave's own device under Gramine: the Attester of code that runs in it."""

    root: Path = ATTESTATION
    sealing: Sealing = "mrenclave"

    def __post_init__(self) -> None:
        if self.sealing not in {"mrenclave", "mrsigner"}:
            raise ConfigurationError("sealing", 'keys are sealed to "mrenclave" or to "mrsigner"')

    @classmethod
    def find(cls, *, root: Path = ATTESTATION, sealing: Sealing = "mrenclave") -> Device:
        """The device of this process. Raises TeeUnavailable where there is none: never a simulated one instead."""
        device = cls(root, sealing)
        if not root.is_dir():
            raise TeeUnavailable(
                "tee",
                "this process is not an SGX enclave under Gramine",
                hint="start it with gramine-sgx; run `confide doctor` for what this machine has",
                stage="attest",
            )
        if device._type() != b"dcap":
            raise TeeUnavailable(
                "tee",
                "this enclave was built without DCAP attestation",
                hint='set `sgx.remote_attestation = "dcap"` in its manifest, and sign it again',
                stage="attest",
            )
        return device

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """A quote over exactly these 64 bytes. Raises ``enclave.bad_state`` if Gramine fails or answers another question."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        with _LOCK:
            self._write("user_report_data", bytes(report_data))
            made = self._read("quote", _MAX_QUOTE)
        if _report_data(made) != report_data:
            raise EnclaveError(
                "bad_state", "the enclave answered with a quote over other data", stage="attest"
            )
        return PlatformEvidence(EvidencePart("sgx", made))

    def derive_key(self, label: bytes) -> bytes:
        """32 bytes for ``label`` that only this enclave (or its signer's, by ``sealing``) on this CPU can derive again.

        They change with the CPU's security version, too: what they seal must be sealed again after a microcode update.
        """
        # The key itself also encrypts Gramine's files, so that it is never used but through a label of our own.
        root = Secret(self._read(f"keys/_sgx_{self.sealing}", _KEY_BYTES + 1))
        try:
            octets = root.reveal()
            if len(octets) != _KEY_BYTES or not any(octets):
                raise EnclaveError("bad_state", "the enclave has no sealing key", stage="attest")
            info = b"confide/sgx/sealing-key/1\x00" + self.sealing.encode() + b"\x00" + label
            return kdf.hkdf(root, salt=b"", info=info, length=32)
        finally:
            root.erase()

    def _type(self) -> bytes:
        try:
            return self._read("attestation_type", _MAX_TYPE).strip()
        except EnclaveError:
            return b""

    def _write(self, name: str, data: bytes) -> None:
        try:
            descriptor = os.open(self.root / name, os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed() from error
        if written != len(data):
            raise EnclaveError("bad_state", "Gramine took a part of the report data", stage="attest")

    def _read(self, name: str, limit: int) -> bytes:
        found = b""
        try:
            descriptor = os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while len(found) < limit and (chunk := os.read(descriptor, limit - len(found))):
                    found += chunk
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failed() from error
        return found


def _report_data(data: bytes) -> bytes:
    try:
        return quote.EnclaveReport.decode(quote.decode(data, quote.SGX).body).report_data
    except ConfideError as error:
        raise EnclaveError("bad_state", "Gramine returned what is no SGX quote", stage="attest") from error


def _failed() -> EnclaveError:
    return EnclaveError(
        "bad_state",
        "Gramine's attestation device failed",
        hint="Gramine reports every failure as a lack of permission; its own log says which one it was",
        stage="attest",
    )
