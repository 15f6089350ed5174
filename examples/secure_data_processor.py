# SPDX-License-Identifier: Apache-2.0
"""A key derived inside the enclave; bytes decrypted, worked on and encrypted there, and nowhere else.

    python examples/secure_data_processor.py

The key depends on the TEE and on the measurement: the same code gets it again after a restart, changed code never does.
Runs on a SIMULATED enclave: the steps and the checks are the real ones, the protection from this machine's owner is not.
"""

from __future__ import annotations

import json

from records import process

from confide import ConfideError, Enclave, Function, Verifier, simulator
from confide.enclave.measure import measure


def accepts(service: Function) -> Verifier:
    return Verifier(measure(service), extra_anchors=[simulator.anchor()], allow_simulated=True)


def main() -> None:
    service = Function(process, id="records")

    with (
        Enclave.launch(service, tee="simulated") as enclave,
        Function.connect(enclave.url, accepts(service)) as call,
    ):
        stored = call("encrypt", json.dumps([4.0, 8.0, 15.0]).encode())
        print("stored:", len(stored), "bytes of ciphertext, which this machine cannot read")

    # A restart: the same measurement has the same key, so what was stored can be worked on.
    with (
        Enclave.launch(service, tee="simulated") as enclave,
        Function.connect(enclave.url, accepts(service)) as call,
    ):
        summary = call("summarise", stored)
        print("summary:", call("reveal", summary).decode())
        try:
            call("reveal", stored)
        except ConfideError as error:
            print("reveal of the records themselves:", error.code)

    # Another configuration is another measurement, and has another key.
    other = Function(process, id="another")
    with (
        Enclave.launch(other, tee="simulated") as enclave,
        Function.connect(enclave.url, accepts(other)) as call,
    ):
        try:
            call("summarise", stored)
        except ConfideError as error:
            print("in another enclave:", error.code)


if __name__ == "__main__":
    main()
