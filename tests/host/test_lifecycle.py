# SPDX-License-Identifier: Apache-2.0
"""RT-05: whatever is done to an enclave in whatever order, it is in a state that its past allows, or it says bad_state."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from confide.errors import EnclaveError
from confide.host.lifecycle import Lifecycle, State

ORDER = [State.CREATED, State.MEASURED, State.WAITING, State.RUNNING, State.DRAINING, State.STOPPED]


class LifecycleMachine(RuleBasedStateMachine):
    """A model beside the real thing: the set of states that may follow, written here a second time and differently."""

    def __init__(self) -> None:
        super().__init__()
        self.lifecycle = Lifecycle()
        self.seen = [State.CREATED]
        self.error: EnclaveError | None = None

    def _may(self, to: State) -> bool:
        now = self.seen[-1]
        if now in {State.STOPPED, State.FAILED}:
            return False
        if to is State.FAILED:
            return True
        if to is State.WAITING and now is State.RUNNING:
            return True
        if to is State.CREATED or ORDER.index(to) <= ORDER.index(now):
            return False
        if now is State.CREATED:
            return to in {State.MEASURED, State.STOPPED}
        return True

    @rule(to=st.sampled_from(State))
    def move(self, to: State) -> None:
        if to is self.seen[-1]:
            self.lifecycle.move(to)
            return
        if self._may(to):
            self.lifecycle.move(to)
            self.seen.append(to)
            return
        with pytest.raises(EnclaveError) as caught:
            self.lifecycle.move(to)
        assert caught.value.code == "enclave.bad_state"

    @rule(leaf=st.sampled_from(["crashed", "out_of_memory"]))
    def fail(self, leaf: str) -> None:
        error = EnclaveError(leaf, "x")
        self.lifecycle.fail(error)
        if not self.seen[-1].final:
            self.seen.append(State.FAILED)
            self.error = error

    @rule(states=st.sets(st.sampled_from(State)))
    def require(self, states: set[State]) -> None:
        if self.seen[-1] in states:
            self.lifecycle.require(*states)
        else:
            with pytest.raises(EnclaveError):
                self.lifecycle.require(*states)

    @rule(states=st.sets(st.sampled_from(State)))
    def wait(self, states: set[State]) -> None:
        now = self.seen[-1]
        if now in states or now.final:
            assert self.lifecycle.wait_for(states, 0) is now
        else:
            with pytest.raises(EnclaveError) as caught:
                self.lifecycle.wait_for(states, 0)
            assert caught.value.code == "enclave.deadline"

    @precondition(lambda self: self.seen[-1].final)
    @rule()
    def nothing_comes_after_the_end(self) -> None:
        for to in State:
            if to is not self.seen[-1]:
                with pytest.raises(EnclaveError):
                    self.lifecycle.move(to)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.lifecycle.state is self.seen[-1]
        # A failure by `move` has no error; one by `fail` keeps the first.
        assert self.lifecycle.error is self.error


TestRt05Lifecycle = LifecycleMachine.TestCase
TestRt05Lifecycle.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_rt_05_a_waiting_thread_is_woken_by_the_end() -> None:
    lifecycle = Lifecycle()
    lifecycle.move(State.MEASURED)
    reached: list[State] = []
    thread = threading.Thread(target=lambda: reached.append(lifecycle.wait_for({State.RUNNING}, 10)))
    thread.start()
    lifecycle.fail(EnclaveError("crashed", "x"))
    thread.join(5)
    assert reached == [State.FAILED]
