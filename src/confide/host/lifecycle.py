# SPDX-License-Identifier: Apache-2.0
r"""The states of an enclave, seen from outside, and the moves between them.

    created -> measured -> waiting -> running -> draining -> stopped
       \___________\__________\__________\__________\______-> failed

``waiting`` is for keys, and is passed over where none are missing. ``stopped`` and ``failed`` are final: what runs again is
another enclave, with other keys and evidence of its own.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from confide.errors import ConfideError, EnclaveError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Lifecycle", "State"]


class State(StrEnum):
    """Where an enclave is in its life."""

    CREATED = "created"
    MEASURED = "measured"
    WAITING = "waiting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing comes after."""
        return self in {State.STOPPED, State.FAILED}


_NEXT: Final = {
    State.CREATED: {State.MEASURED, State.FAILED, State.STOPPED},
    State.MEASURED: {State.WAITING, State.RUNNING, State.DRAINING, State.FAILED, State.STOPPED},
    State.WAITING: {State.RUNNING, State.DRAINING, State.FAILED, State.STOPPED},
    State.RUNNING: {State.WAITING, State.DRAINING, State.FAILED, State.STOPPED},
    State.DRAINING: {State.STOPPED, State.FAILED},
    State.STOPPED: set(),
    State.FAILED: set(),
}


class Lifecycle:
    """A state that several threads move and await."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._state = State.CREATED
        self._error: ConfideError | None = None

    @property
    def state(self) -> State:
        """Where it is now."""
        with self._condition:
            return self._state

    @property
    def error(self) -> ConfideError | None:
        """Why it failed."""
        with self._condition:
            return self._error

    def move(self, to: State) -> None:
        """Go on to ``to``; ``enclave.bad_state`` where no such move exists. Staying where one is is not a move."""
        with self._condition:
            if to == self._state:
                return
            if to not in _NEXT[self._state]:
                raise EnclaveError("bad_state", f"an enclave that is {self._state} does not become {to}")
            self._state = to
            self._condition.notify_all()

    def fail(self, error: ConfideError) -> None:
        """Go to failed, unless it has ended already; the first error stays."""
        with self._condition:
            if self._state.final:
                return
            self._error = error
            self._state = State.FAILED
            self._condition.notify_all()

    def wait_for(self, states: Collection[State], timeout: float | None) -> State:
        """Wait until it is in one of ``states``, or final; ``enclave.deadline`` when that takes longer than ``timeout``
        seconds.
        """
        with self._condition:
            done = self._condition.wait_for(lambda: self._state in states or self._state.final, timeout)
            if not done:
                raise EnclaveError(
                    "deadline", f"the enclave is still {self._state}", stage="lifecycle", retryable=True
                )
            return self._state

    def require(self, *states: State) -> None:
        """``enclave.bad_state`` unless it is in one of ``states``."""
        now = self.state
        if now not in states:
            raise EnclaveError(
                "bad_state",
                f"this needs an enclave that is {' or '.join(states)}; it is {now}",
                hint="Launch it again: a new enclave has to be attested again.",
            )
