# SPDX-License-Identifier: Apache-2.0
"""Against an independent attester and verifier: tpm2-tools make a quote that is verified here, and check one that is made here."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from confide.attestation import binding
from confide.attestation.anchors import TrustAnchor
from confide.tees.tpm import public, wire
from confide.tees.tpm.attest import Device
from confide.tees.tpm.client import Tpm
from confide.tees.tpm.transport import UnixSocket
from support import swtpm, tpm

if TYPE_CHECKING:
    from pathlib import Path

REPORT_DATA = bytes(range(64))


def tool(name: str, *arguments: str, folder: Path, socket: Path | None = None, fails: bool = False) -> None:
    """Run one of tpm2-tools in ``folder``; the test skips where they are not installed."""
    program = shutil.which(name)
    if program is None:
        pytest.skip("tpm2-tools are not installed (Debian: apt-get install tpm2-tools)")
    environment = {**os.environ, "TPM2TOOLS_TCTI": "none" if socket is None else f"swtpm:path={socket}"}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("key", "scheme", "hash_name"),
    [("ecc", "ecdsa", "sha256"), ("rsa", "rsassa", "sha256"), ("rsa", "rsapss", "sha256")],
)
def test_a_quote_that_tpm2_tools_make_below_their_endorsement_key_verifies(
    tmp_path: Path, key: str, scheme: str, hash_name: str
) -> None:
    banks = (wire.Selection("sha256", (0, 1, 4, 17)), wire.Selection("sha1", (7,)))
    with swtpm.process(tmp_path / "swtpm") as socket:
        tool("tpm2_startup", "-c", folder=tmp_path, socket=socket)
        tool("tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub", folder=tmp_path, socket=socket)
        tool("tpm2_flushcontext", "-t", folder=tmp_path, socket=socket)
        made = ["-C", "ek.ctx", "-c", "ak.ctx", "-G", key, "-g", hash_name, "-s", scheme, "-u", "ak.pub"]
        tool("tpm2_createak", *made, folder=tmp_path, socket=socket)
        tool("tpm2_flushcontext", "-t", folder=tmp_path, socket=socket)
        quote = ["-c", "ak.ctx", "-l", "sha256:0,1,4,17+sha1:7", "-q", "0123456789abcdef", "-g", hash_name]
        quote += ["--scheme", scheme]
        tool("tpm2_quote", *quote, "-m", "quote", "-s", "signature", folder=tmp_path, socket=socket)
        reader = Tpm(UnixSocket(socket))
        pcrs = reader.pcr_read(banks)
        reader.shutdown()
        reader.close()
    # Both files hold TPM2B_PUBLIC: two bytes of length, then the area.
    ek, ak = ((tmp_path / name).read_bytes()[2:] for name in ("ek.pub", "ak.pub"))
    endorsement = public.HIERARCHIES["endorsement"].to_bytes(4, "big")
    part = wire.TpmEvidence(
        (tmp_path / "quote").read_bytes(),
        (tmp_path / "signature").read_bytes(),
        pcrs,
        ak=ak,
        parent=public.qualified_name(endorsement, public.decode_public(ek).name),
    ).encode()
    fingerprint = hashlib.sha256(public.decode_public(ak).spki()).digest()
    claims = tpm.authenticate(part, anchors=(TrustAnchor("tpm", "pin", (), keys=(fingerprint,)),))
    assert claims.report_data == bytes.fromhex("0123456789abcdef")
    assert sorted(claims.measurements) == ["pcr0", "pcr1", "pcr17", "pcr4"]


def test_a_quote_of_ours_passes_tpm2_checkquote(tmp_path: Path) -> None:
    with swtpm.running(tmp_path / "swtpm") as software:
        found = Device(software, event_log=None).attest(REPORT_DATA)
    part = wire.TpmEvidence.decode(found.platform.data)
    assert part.ak is not None
    (tmp_path / "quote").write_bytes(part.attest)
    (tmp_path / "signature").write_bytes(part.signature)
    body = base64.encodebytes(public.decode_public(part.ak).spki())
    (tmp_path / "ak.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n")
    checked = ["-u", "ak.pem", "-m", "quote", "-s", "signature", "-g", "sha256", "-q"]
    tool("tpm2_checkquote", *checked, binding.tpm_qualifying_data(REPORT_DATA).hex(), folder=tmp_path)
    tool("tpm2_checkquote", *checked, bytes(32).hex(), folder=tmp_path, fails=True)
