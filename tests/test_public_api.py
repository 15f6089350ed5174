# SPDX-License-Identifier: Apache-2.0
"""What ``import confide`` gives, what it costs, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import confide

NAMES = {
    *("Enclave", "Function", "Application", "ModelService", "KeyBroker"),
    *("Verifier", "AppraisalPolicy", "Evidence", "Client", "AsyncClient"),
    *("protect", "Vault", "ConfideError"),
}
FRAMEWORKS = ("onnxruntime", "torch", "tensorflow", "sklearn", "xgboost", "lightgbm")


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_the_public_names_are_exactly_these() -> None:
    assert set(confide.__all__) == NAMES
    assert list(confide.__all__) == sorted(confide.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_public_name_exists_and_says_what_it_is(name: str) -> None:
    found = getattr(confide, name)
    assert callable(found)
    assert found.__doc__
    assert name in dir(confide)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = confide.NoSuchName


def test_importing_confide_loads_nothing_but_itself() -> None:
    loaded = _run("import sys, confide; print(' '.join(m for m in sys.modules if m.startswith('confide')))")
    assert loaded == "confide"


def test_no_name_loads_a_machine_learning_framework() -> None:
    code = f"""
import sys, confide
for name in confide.__all__:
    getattr(confide, name)
print(*(m for m in {FRAMEWORKS!r} if m in sys.modules))
"""
    assert not _run(code)


def test_importing_confide_takes_under_300_milliseconds_of_cpu() -> None:
    """CPU time over that of a bare interpreter, the best of three: other work on the machine does not count."""
    code = "import time, {}; print(time.process_time())"
    bare = min(float(_run(code.format("sys"))) for _ in range(3))
    ours = min(float(_run(code.format("confide"))) for _ in range(3))
    assert ours - bare < 0.3
