# SPDX-License-Identifier: Apache-2.0
"""Functions as services: what may be one, and what calling one does."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.enclave.function import Function
from confide.enclave.service import Limits
from confide.errors import ConfigurationError, EnclaveError
from confide.host.enclave import State
from confide.keys.identity import Identity
from confide.keys.release import SecretName
from confide.keys.unlock import unlock
from confide.sealing.writer import Entry, write
from support.enclaves import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from confide.enclave.function import FunctionClient
    from support.enclaves import Launcher


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SAMPLES))
    return importlib.import_module("confidential_functions")


def refusal(function: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Function(function)
    assert caught.value.code == "configuration.code"
    return caught.value


def test_what_cannot_be_imported_by_name_is_refused_with_the_line_that_fixes_it(
    functions: ModuleType,
) -> None:
    assert "def predict(x)" in refusal(functions.as_lambda).hint
    assert "factor" in refusal(functions.make_closure(3)).hint
    assert "top level" in refusal(functions.outer()).hint
    assert "top level" in refusal(functions.Holder.method).hint
    assert "import replaced" in refusal(functions.kept).hint
    for not_a_function in (
        functions.Holder().method,
        functools.partial(functions.add, 1),
        len,
        functions.Holder,
        5,
    ):
        assert "`def`" in refusal(not_a_function).hint


@pytest.mark.parametrize("how", ["script", "prompt"])
def test_a_function_of_a_script_or_notebook_is_refused_with_the_line_that_fixes_it(
    how: str, tmp_path: Path
) -> None:
    code = (
        "from confide import Function, ConfideError\n"
        "def predict(x):\n    return x\n"
        "try:\n    Function(predict)\nexcept ConfideError as error:\n    print(error.hint)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script)] if how == "script" else [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "from confidential import predict" in done.stdout


def test_the_sources_are_measured_and_no_code_is_serialised(functions: ModuleType) -> None:
    service = Function(functions.add)
    assert dict(service.options) == {"function": "confidential_functions:add"}
    (root,) = service.code
    assert root.path == SAMPLES / "confidential_functions.py"


@pytest.fixture(scope="module")
def many(launcher: Launcher) -> Iterator[FunctionClient]:
    sys.path.insert(0, str(SAMPLES))
    try:
        confidential_functions = importlib.import_module("confidential_functions")
        service = Function(
            confidential_functions.many,
            limits=Limits(memory=512 << 20, deadline=3),
            code=[SAMPLES / "confidential_functions.py"],
        )
        with (
            launcher.launch(service) as enclave,
            Function.connect(enclave.url, launcher.verifier(enclave)) as call,
        ):
            yield call
    finally:
        sys.path.remove(str(SAMPLES))


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(EnclaveError) as caught:
        call()
    assert "what must not come out" not in str(caught.value)
    return caught.value.code


def test_calls_return_and_fail_by_code_alone(many: FunctionClient) -> None:
    assert many("x") == "x"
    assert code_of(lambda: many("fail")) == "enclave.crashed"
    assert code_of(lambda: many("unsendable")) == "configuration.value"
    assert code_of(many) == "enclave.crashed"
    assert code_of(lambda: many("x", nonsense=1)) == "enclave.crashed"
    with pytest.raises(ConfigurationError):
        many(object())
    assert many("still there") == "still there"


def test_rt_02_a_call_beyond_the_memory_limit_fails_alone(many: FunctionClient) -> None:
    assert code_of(lambda: many("allocate", 8 << 30)) == "enclave.out_of_memory"
    assert many("allocate", 1000) == 1000


def test_a_call_that_takes_too_long_is_a_deadline(many: FunctionClient) -> None:
    assert code_of(lambda: many("sleep", 4)) == "enclave.deadline"
    assert many("others are served") == "others are served"


def test_the_articles_sketch_with_sealed_weights_and_numpy(
    launcher: Launcher, functions: ModuleType, tmp_path: Path
) -> None:
    """Weights are protected, the enclave waits for their key, the owner unlocks it, a client calls with an array."""
    owner = Identity.open_or_create("owner", tmp_path / "identities")
    key = Secret(bytes(range(32)))
    weights = np.arange(3, dtype="<f4")
    write(
        tmp_path / "weights.confide",
        [Entry("w", weights.tobytes(), "tensor", "f32", (3,))],
        key=key,
        signer=owner.key,
        name="weights",
        version=1,
    )
    service = Function(functions.weighted, data={"weights": tmp_path / "weights.confide"}, requires=["numpy"])
    assert service.models[0].owner_public == owner.key.public
    with launcher.launch(service) as enclave:
        assert enclave.state is State.WAITING
        verifier = launcher.verifier(enclave)
        unlock(enclave.url, verifier=verifier, secrets={SecretName("weights", 1): key}, identity=owner)
        enclave.wait_until("running", timeout=20)
        with Function.connect(enclave.url, verifier) as predict:
            x = np.ones((2, 3), dtype="<f4")
            assert np.array_equal(predict(x), x @ weights)
            assert predict.attestation.simulated


def test_a_file_of_another_owner_is_not_opened(
    launcher: Launcher, functions: ModuleType, tmp_path: Path
) -> None:
    """The manifest pins the owner's key: another's file under the same name and key is refused inside."""
    key = Secret(bytes(range(32)))
    honest, other = Identity.open_or_create("honest", tmp_path / "identities"), SigningKey.generate()
    write(
        tmp_path / "forged.confide",
        [Entry("w", np.zeros(3, "<f4").tobytes(), "tensor", "f32", (3,))],
        key=key,
        signer=other,
        name="weights",
        version=1,
    )
    service = Function(
        functions.weighted,
        models={"weights": honest.key.public},
        data={"weights": tmp_path / "forged.confide"},
        requires=["numpy"],
    )
    with launcher.launch(service) as enclave:
        verifier = launcher.verifier(enclave)
        unlock(enclave.url, verifier=verifier, secrets={SecretName("weights", 1): key}, identity=honest)
        enclave.wait_until("running", timeout=20)
        with Function.connect(enclave.url, verifier) as predict:
            assert code_of(lambda: predict(np.ones((1, 3), "<f4"))) == "sealing.signer"
