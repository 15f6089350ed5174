# SPDX-License-Identifier: Apache-2.0
"""T1: our AEAD wrapper against the library's own call on the same buffers."""

from __future__ import annotations

import os

from benchmarks import harness
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide.crypto.aead import Aead


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__ or "")
    options = parser.parse_args(arguments)
    report = harness.Report(
        "T1: seal and open into a reused buffer, against AESGCM.encrypt_into and decrypt_into"
    )
    key, nonce, aad = os.urandom(32), os.urandom(12), b"\x02"
    ours, theirs = Aead(key), AESGCM(key)
    for label, size, calls, floor in (("1 MiB", 1 << 20, 50, 0.90), ("4 KiB", 4096, 5000, 0.50)):
        plaintext = os.urandom(size)
        sealed = bytearray(size + 16)
        opened = bytearray(size)
        theirs.encrypt_into(nonce, plaintext, aad, sealed)
        ciphertext = bytes(sealed)
        measured = harness.interleave(
            {
                "seal": lambda: ours.seal_into(nonce, plaintext, aad, sealed),  # noqa: B023
                "encrypt_into": lambda: theirs.encrypt_into(nonce, plaintext, aad, sealed),  # noqa: B023
                "open": lambda: ours.open_into(nonce, ciphertext, aad, opened),  # noqa: B023
                "decrypt_into": lambda: theirs.decrypt_into(nonce, ciphertext, aad, opened),  # noqa: B023
            },
            repetitions=options.repetitions,
            calls=calls,
        )
        report.ratio(
            "T1", f"seal {label}", measured["seal"].cpu, measured["encrypt_into"].cpu, at_least=floor
        )
        report.ratio(
            "T1", f"open {label}", measured["open"].cpu, measured["decrypt_into"].cpu, at_least=floor
        )
    report.show(as_json=options.json)


if __name__ == "__main__":
    main()
