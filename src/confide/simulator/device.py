# SPDX-License-Identifier: Apache-2.0
"""What a simulated device answers to the enclave that it measured: its evidence, its keys, and nothing else."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from confide.errors import ConfideError, EnclaveError, MalformedError
from confide.simulator import messages
from confide.wire.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confide.simulator.snp import Chip

__all__ = ["Device"]

MAX_LABEL = 256


class Device:
    """One chip and the one enclave that it runs. What the enclave says never reaches MEASUREMENT or HOST_DATA."""

    def __init__(self, chip: Chip, manifest: bytes, *, debug: bool) -> None:
        self._chip = chip
        self._manifest = manifest
        self._debug = debug
        self._level: int | None = None
        self._attested = False

    def answer(self, message: Mapping[Any, Any]) -> dict[str, object]:
        """The answer to one question of the worker, with its number; an error of the taxonomy is an answer too.

        Raises ``malformed`` errors for a question without a number.
        """
        fields = Fields(message, "device question")
        number = fields.integer("number", 0, (1 << 63) - 1)
        try:
            answer = self._answer(fields)
        except ConfideError as error:
            answer = messages.error_message(error)
        return {**answer, "number": number}

    def _answer(self, fields: Fields) -> dict[str, object]:
        question = fields.text("ask", 16)
        if question == "attest":
            report_data = fields.bytes_("report_data", 64)
            fields.end()
            return self._attest(report_data)
        if question == "derive":
            label = fields.bytes_("label", max_length=MAX_LABEL)
            fields.end()
            return {"key": self._chip.derive_key(label, manifest=self._manifest)}
        if question == "level":
            level = fields.integer("level", 0, 3)
            fields.end()
            return self._claim(level)
        raise MalformedError("unknown_format", "a simulated device does not answer this question")

    def _claim(self, level: int) -> dict[str, object]:
        if self._level is not None or self._attested:
            raise EnclaveError(
                "bad_state", "the level of confinement is claimed once, before any evidence", stage="device"
            )
        self._level = level
        return {}

    def _attest(self, report_data: bytes) -> dict[str, object]:
        self._attested = True
        report = self._chip.report(
            report_data, manifest=self._manifest, debug=self._debug, level=self._level or 0
        )
        root = self._chip.installation
        return {"certificates": [self._chip.vcek, root.ask, root.ark], "crls": [root.crl], "report": report}

    def serve(self, worker: socket.socket) -> None:
        """Answer until the worker's end closes or sends what is no message; then nothing is said on this socket any more."""
        try:
            while (message := messages.receive(worker, limit=messages.MAX_WORKER)) is not None:
                messages.send(worker, self.answer(message))
        except ConfideError:
            return  # Who sends what is no message gets no answer.
        finally:
            with contextlib.suppress(OSError):
                worker.shutdown(socket.SHUT_RDWR)
