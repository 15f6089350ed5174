# SPDX-License-Identifier: Apache-2.0
"""Ask a TPM, from inside a machine: quotes with the attestation key that somebody vouches for, keys bound to what was booted.

Three kinds of machines are told apart by what their TPM's memory holds. Azure's paravisor keeps the HCL report at NV index
0x01400001 and makes it anew after a write to 0x01400002; its AK is at 0x81000003. Google's vTPM holds the certificates and
templates of its AKs at 0x01c10000 to 0x01c10003. On others the AK is a primary key of ours, for a policy to pin.
Source: azure-cvm-tooling (az-cvm-vtpm), go-tpm-tools (client/handles.go). What the host adds is passed on untrusted.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from confide.attestation import binding
from confide.attestation.attester import PlatformEvidence
from confide.attestation.evidence import MAX_PART, Endorsements, EvidencePart
from confide.crypto import x509
from confide.errors import ConfigurationError, EnclaveError
from confide.tees.tpm import boot, client, enroll, hcl, public, sealing, wire
from confide.tees.tpm.client import Tpm
from confide.tees.tpm.metadata import MetadataService
from confide.tees.tpm.transport import DeviceFile, UnixSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confide.tees.tpm.metadata import Metadata

__all__ = ["BOOT_PCRS", "Device", "ak_template"]

DEVICE: Final = Path("/dev/tpmrm0")
EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
AZURE_REPORT: Final = 0x0140_0001
AZURE_REPORT_DATA: Final = 0x0140_0002
AZURE_AK: Final = 0x8100_0003
EK_CERTIFICATE: Final = 0x01C0_0002
GOOGLE_AKS: Final = ((0x01C1_0000, 0x01C1_0001), (0x01C1_0002, 0x01C1_0003))
"""Certificate and template of Google's AKs: RSA, then ECC."""

NV_OWNER_WRITE: Final = 1 << 1
NV_OWNER_READ: Final = 1 << 17
BOOT_PCRS: Final = (4, 7, 8, 9, 11, 12)
"""What keys are bound to by default: boot loader, its keys, GRUB and kernel, their parameters; not the firmware."""

_EVERY: Final = (wire.Selection("sha256", tuple(range(wire.MAX_PCRS))),)
_WAIT: Final = 3.0
_TRIES: Final = 3


def ak_template() -> bytes:
    """An attestation key on P-256: restricted, so that it signs nothing but what the TPM says, and fixed to this TPM."""
    return public.encode_public(
        attributes=public.attributes(
            "fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "restricted", "sign"
        ),
        scheme=public.Scheme("ecdsa", "sha256"),
        curve="p256",
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """A loaded AK: its handle, its public area (None where another names it), and its certificate, if there is one."""

    handle: int
    area: bytes | None
    certificates: tuple[bytes, ...]


class Device:
    """A machine's TPM: the Attester of code that runs there.

    ``certificates`` are DER certificates of the AK on a machine that is neither Azure's nor Google's; ``event_log`` is where the
    firmware's log lies, None to leave it out; ``pcrs`` are those of SHA-256 that keys are bound to.
    """

    __slots__ = ("_certificates", "_event_log", "_metadata", "_pcrs", "_sleep", "_tpm")

    def __init__(
        self,
        tpm: Tpm,
        *,
        certificates: tuple[bytes, ...] = (),
        event_log: Path | None = EVENT_LOG,
        pcrs: tuple[int, ...] = BOOT_PCRS,
        metadata: Metadata | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tpm = tpm
        self._certificates = certificates
        self._event_log = event_log
        self._pcrs = (wire.Selection("sha256", tuple(sorted(set(pcrs)))),)
        self._metadata = metadata or MetadataService()
        self._sleep = sleep

    @classmethod
    def find(cls, *, path: Path = DEVICE, socket: Path | None = None) -> Device:
        """The TPM of this machine, or the swtpm at ``socket`` where one is named. Raises TeeUnavailable with what is missing."""
        if socket is None:
            return cls(Tpm(DeviceFile(path)))
        tpm = Tpm(UnixSocket(socket))
        tpm.startup()
        # The log of this machine is not about a TPM beside it.
        return cls(tpm, event_log=None)

    @property
    def kind(self) -> str:
        """Whose TPM this is: "azure", "google" or "other"."""
        if self._tpm.nv_public(AZURE_REPORT) is not None:
            return "azure"
        return "google" if self._google() is not None else "other"

    def close(self) -> None:
        """Let go of the TPM."""
        self._tpm.close()

    def attest(self, report_data: bytes) -> PlatformEvidence:
        """A quote of PCR 0 to 23 over exactly these 64 bytes; on Azure the CPU's report as platform, with the quote beside it.

        The quote carries ``binding.tpm_qualifying_data(report_data)``. Raises ``enclave`` errors if the TPM or the host fails.
        """
        if len(report_data) != binding.REPORT_DATA_BYTES:
            raise ConfigurationError("report_data", "report data is exactly 64 bytes")
        if self.kind == "azure":
            return self._attest_azure(report_data)
        with self._key() as key:
            part = self._quote(key, report_data, report=None)
        endorsements = Endorsements(key.certificates, documents=self._documents())
        return PlatformEvidence(EvidencePart("tpm", part), endorsements=endorsements)

    def fingerprint(self) -> bytes:
        """SHA-256 of the AK's SubjectPublicKeyInfo: what a policy pins as ``ak``."""
        if self.kind == "azure":
            area = self._tpm.read_public(AZURE_AK)[0]
            return hashlib.sha256(public.decode_public(area).spki()).digest()
        with self._key() as key:
            return hashlib.sha256(public.decode_public(key.area or b"").spki()).digest()

    def enrollment(self) -> enroll.Enrollment:
        """What an owner needs to challenge this TPM: its endorsement key with the certificate in NV index 0x01c00002, and its AK."""
        with self._tpm.primary(client.ENDORSEMENT, enroll.ek_template()) as (_, ek), self._key() as key:
            if key.area is None:
                raise EnclaveError("bad_state", "the TPM gives no attestation key", stage="attest")
            index = self._tpm.nv_public(EK_CERTIFICATE)
            certificates = () if index is None else (_certificate(self._tpm.nv_read(index)),)
            return enroll.Enrollment(ek, key.area, certificates)

    def activate(self, credential: tuple[bytes, bytes]) -> bytes:
        """The answer to a challenge: the secret, if it was encrypted to this TPM's endorsement key for its AK's name."""
        with (
            self._tpm.primary(client.ENDORSEMENT, enroll.ek_template()) as (ek, _),
            self._key() as key,
            self._tpm.policy_session() as session,
        ):
            self._tpm.policy_secret(session, client.ENDORSEMENT)
            return self._tpm.activate_credential(key.handle, ek, session, credential)

    def derive_key(self, label: bytes) -> bytes:
        """32 bytes for ``label`` that only this TPM gives, while its PCRs are those of this boot (``sealing.derive_key``)."""
        return sealing.derive_key(self._tpm, label, self._pcrs)

    def seal(self, data: bytes) -> bytes:
        """A blob that ``unseal`` opens on this TPM only, while its PCRs are those of this boot (``sealing.seal``)."""
        return sealing.seal(self._tpm, data, self._pcrs)

    def unseal(self, blob: bytes) -> bytes:
        """The data in a blob of ``seal``."""
        return sealing.unseal(self._tpm, blob)

    def _attest_azure(self, report_data: bytes) -> PlatformEvidence:
        report = self._azure_report(report_data)
        part = self._quote(_Key(AZURE_AK, None, ()), report_data, report=report)
        split = hcl.decode_hcl(report)
        if split.tee == "snp":
            platform = EvidencePart("snp", split.hardware_report)
            certificates = self._metadata.certificates()
        else:
            platform = EvidencePart("tdx", self._metadata.td_quote(split.hardware_report[:1024]))
            certificates = ()
        return PlatformEvidence(
            platform,
            (EvidencePart("tpm", part),),
            Endorsements(certificates, documents=self._documents()),
        )

    def _azure_report(self, report_data: bytes) -> bytes:
        """The HCL report that the paravisor makes after ``report_data`` was written; an older one says so in its claims."""
        there = self._tpm.nv_public(AZURE_REPORT_DATA)
        if there is not None and there.size != len(report_data):
            self._tpm.nv_undefine(AZURE_REPORT_DATA)
            there = None
        if there is None:
            self._tpm.nv_define(AZURE_REPORT_DATA, len(report_data), NV_OWNER_WRITE | NV_OWNER_READ)
        self._tpm.nv_write(AZURE_REPORT_DATA, report_data)
        for _ in range(_TRIES):
            self._sleep(_WAIT)
            index = self._tpm.nv_public(AZURE_REPORT)
            if index is None:
                break
            report = self._tpm.nv_read(index)
            if hcl.decode_claims(hcl.decode_hcl(report).claims_json).user_data == report_data:
                return report
        raise EnclaveError(
            "bad_state",
            "the paravisor gave no report over the data that was written",
            stage="attest",
            retryable=True,
        )

    def _quote(self, key: _Key, report_data: bytes, *, report: bytes | None) -> bytes:
        qualifying = binding.tpm_qualifying_data(report_data)
        for _ in range(_TRIES):
            attest, signature = self._tpm.quote(key.handle, qualifying, _EVERY)
            pcrs = self._tpm.pcr_read(_EVERY)
            quoted = wire.decode_attest(attest)
            signed = wire.decode_signature(signature)
            if quoted.extra_data != qualifying:
                raise EnclaveError("bad_state", "the TPM quoted other data", stage="attest")
            # A PCR may be extended between the quote and its reading.
            if wire.pcr_digest(quoted.selections, pcrs, signed.hash_name) == quoted.pcr_digest:
                return wire.TpmEvidence(attest, signature, pcrs, ak=key.area, hcl=report).encode()
        raise EnclaveError("bad_state", "the PCRs do not stop changing", stage="attest", retryable=True)

    @contextmanager
    def _key(self) -> Iterator[_Key]:
        """Google's AK with its certificate, or our own with those that were given, as a loaded object."""
        google = self._google()
        template, certificates = (ak_template(), self._certificates) if google is None else google
        with self._tpm.primary(client.ENDORSEMENT, template) as (handle, area):
            yield _Key(handle, area, certificates)

    def _google(self) -> tuple[bytes, tuple[bytes, ...]] | None:
        """The template and certificate of the first of Google's AKs that is there."""
        for certificate, template in GOOGLE_AKS:
            found = [self._tpm.nv_public(index) for index in (certificate, template)]
            if found[0] is not None and found[1] is not None:
                der, area = self._tpm.nv_read(found[0]), self._tpm.nv_read(found[1])
                return area, (_certificate(der),)
        return None

    def _documents(self) -> tuple[EvidencePart, ...]:
        """The firmware's event log, where it is readable and fits a bundle: evidence is as good without it."""
        if self._event_log is None:
            return ()
        try:
            with self._event_log.open("rb") as file:
                data = file.read(MAX_PART + 1)
        except OSError:
            return ()
        return (EvidencePart(boot.DOCUMENT, data),) if 0 < len(data) <= MAX_PART else ()


def _certificate(data: bytes) -> bytes:
    """The certificate at the start of an index, which may be larger: its DER says how long it is."""
    if len(data) > 4 and data[:2] == b"\x30\x82":
        data = data[: 4 + int.from_bytes(data[2:4], "big")]
    return x509.Certificate.from_der(data).der
