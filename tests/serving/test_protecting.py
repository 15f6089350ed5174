# SPDX-License-Identifier: Apache-2.0
"""`protect`: what it writes, what it refuses before anything is written, and what only the owner can read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from confide.attestation.policy import AppraisalPolicy
from confide.enclave.measure import measure
from confide.enclave.service import SecretPin, Service
from confide.errors import ConfideError
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.sealing.protected_file import ProtectedFile
from confide.serving.model_service import ModelService
from confide.serving.protecting import Protected, name_of, protect_for_service
from support import onnx_bytes as craft


class Owner:
    """One owner with a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = Identity.open_or_create("default", folder / "identities")
        self.keyring = Keyring(folder / "keys")
        self.content = folder / "my model.onnx"
        self.content.write_bytes(craft.linear_model())
        self.service = folder / "service.toml"
        self.policy = folder / "policy.toml"
        self.output = folder / "out.confide"

    def protect(self, **options: Any) -> Protected:
        return protect_for_service(
            self.content,
            service_path=self.service,
            output=self.output,
            policy_path=self.policy,
            identity=self.identity,
            keyring=self.keyring,
            **options,
        )

    def refused(self, **options: Any) -> str:
        """The code of a refusal that has written nothing."""
        before = sorted(path.name for path in self.folder.rglob("*"))
        with pytest.raises(ConfideError) as caught:
            self.protect(**options)
        assert sorted(path.name for path in self.folder.rglob("*")) == before
        return caught.value.code


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def test_one_call_makes_service_policy_key_and_file(owner: Owner) -> None:
    done = owner.protect(service_id="acme")

    assert done.service_written
    assert (done.key.name, done.key.version) == ("my-model", 1)
    service = ModelService.from_toml(owner.service)
    assert service == done.service
    assert service.models == (SecretPin("my-model", owner.identity.public),)
    assert AppraisalPolicy.from_file(owner.policy).digest == measure(service).digest
    with ProtectedFile.open(
        owner.output,
        key=owner.keyring.get("my-model").secret,
        owner_public=owner.identity.public,
        name="my-model",
    ) as file:
        assert bytes(file.read("model.onnx")) == craft.linear_model()
        assert file.metadata["format"] == "onnx"


def test_leak_01_nothing_of_the_model_is_readable_in_what_was_written(owner: Owner) -> None:
    """Weights, and the names of layers, which are canaries here: the plain file holds both."""
    canary = "canary_layer_b12f"
    weights = [1.0 + index / 64 for index in range(64)]
    graph = craft.graph(
        [craft.node("MatMul", ["x", canary], ["y"])],
        [craft.value("x", ["n", 64])],
        [craft.value("y", ["n", 1])],
        [craft.tensor(canary, [64, 1], craft.floats(*weights))],
    )
    owner.content.write_bytes(craft.model(graph))
    owner.protect()
    written = b"".join(
        path.read_bytes() for path in owner.folder.rglob("*") if path.is_file() and path != owner.content
    )

    for needle in (canary.encode(), craft.floats(*weights)[:32], b"MatMul", b"model.onnx"):
        assert needle in owner.content.read_bytes() or needle == b"model.onnx"
        assert needle not in written


def test_protecting_again_makes_a_new_version_of_the_key(owner: Owner) -> None:
    first = owner.protect()
    again = owner.protect()

    assert (first.key.version, again.key.version) == (1, 2)
    assert not again.service_written
    assert first.policy.digest == again.policy.digest


_KILLED_PROTECT = """
import os, signal, sys
from pathlib import Path
from confide.keys.identity import Identity
from confide.keys.keyring import Keyring
from confide.serving import protecting
from confide.sealing import durable

folder, moment = Path(sys.argv[1]), sys.argv[2]

def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "key made":
    protecting.write = killed
elif moment == "file flushed":
    durable.os.rename = killed
else:
    Keyring.settle = killed
protecting.protect_for_service(
    folder / "my model.onnx", service_path=folder / "service.toml", output=folder / "out.confide",
    policy_path=folder / "policy.toml", identity=Identity.open("default", folder / "identities"),
    keyring=Keyring(folder / "keys"),
)
"""


@pytest.mark.parametrize(("moment", "version"), [("key made", 1), ("file flushed", 1), ("file in place", 2)])
def test_sea_08_killed_while_protecting_again_the_newest_key_is_that_of_the_file(
    owner: Owner, moment: str, version: int
) -> None:
    """`unlock` hands over the newest key; it must not be one that was made for a file that never came to be."""
    owner.protect()
    run = subprocess.run(
        [sys.executable, "-c", _KILLED_PROTECT, str(owner.folder), moment], timeout=50, check=False
    )
    assert run.returncode == -signal.SIGKILL

    for _ in range(2):  # The second time without anything left to mend.
        key = owner.keyring.get("my-model")
        assert key.name.version == version
        with ProtectedFile.open(
            owner.output, key=key.secret, owner_public=owner.identity.public, name="my-model"
        ) as file:
            assert file.version == version
    after = owner.protect()
    assert after.key.version == 3
    assert owner.keyring.get("my-model").secret == after.data_key.secret


def test_a_protect_that_fails_leaves_the_keyring_as_it_was(owner: Owner) -> None:
    first = owner.protect()
    before = sorted((owner.folder / "keys").iterdir())
    owner.output.unlink()
    owner.output.mkdir()  # Found only when the file is written.
    with pytest.raises(ConfideError):
        owner.protect()
    assert sorted((owner.folder / "keys").iterdir()) == before
    assert owner.keyring.get("my-model").secret == first.data_key.secret


def test_sea_08_a_policy_is_replaced_whole_or_not_at_all(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of a policy may be a policy that asks for less."""
    owner.protect()
    before = owner.policy.read_bytes()
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if bytes(data[:8]) in before:
            write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(ConfideError):
        owner.protect()
    assert owner.policy.read_bytes() == before


def test_progress_ends_at_the_size(owner: Owner) -> None:
    seen: list[tuple[int, int | None]] = []
    owner.protect(progress=lambda done, total: seen.append((done, total)))

    assert seen[-1] == (len(craft.linear_model()), len(craft.linear_model()))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\x80\x04]q\x00.", "model.unsafe_format"),
        (b"", "model.unsafe_format"),
        (
            craft.model(
                craft.graph(
                    [craft.node("X", ["x"], ["y"], domain="acme")],
                    [craft.value("x", [1])],
                    [craft.value("y", [1])],
                )
            ),
            "model.unsafe_format",
        ),
    ],
)
def test_ml_01_a_model_that_the_enclave_would_refuse_is_not_protected(
    owner: Owner, content: bytes, code: str
) -> None:
    owner.content.write_bytes(content)

    assert owner.refused() == code


def test_a_file_that_is_not_there_is_a_typed_error(owner: Owner) -> None:
    owner.content.unlink()

    assert owner.refused() == "configuration.invalid"


def test_a_service_that_does_not_expect_the_file_is_refused(owner: Owner) -> None:
    stranger = Identity.open_or_create("other", owner.folder / "identities")
    for service, options in (
        (ModelService("a", owner=stranger.public), {}),
        (ModelService("a", owner=stranger.public), {"name": "a"}),
        (ModelService("a", owner=owner.identity.public), {"name": "b"}),
        (Service(kind="application", id="x"), {}),
    ):
        owner.service.write_text(service.to_toml(owner.folder))
        assert owner.refused(**options) == "configuration.invalid"


def test_data_for_another_kind_of_service_is_one_entry(owner: Owner) -> None:
    owner.content.write_bytes(b"row\n" * 5000)
    service = Service(kind="application", id="x", models=(SecretPin("table", owner.identity.public),))
    owner.service.write_text(service.to_toml(owner.folder))
    done = owner.protect()

    assert done.key.name == "table"
    with ProtectedFile.open(
        owner.output, key=owner.keyring.get("table").secret, owner_public=owner.identity.public, name="table"
    ) as file:
        assert file.names == ("data",)
        assert bytes(file.read("data")) == b"row\n" * 5000


def test_names_are_made_of_file_names() -> None:
    assert name_of(Path("a/b c (1).onnx")) == "b-c-1"
    assert name_of(Path("x" * 300 + ".onnx")) == "x" * 128
    with pytest.raises(ConfideError):
        name_of(Path("---.onnx"))


def test_an_owner_needs_no_framework_and_a_client_hears_what_is_missing(tmp_path: Path) -> None:
    """On a machine without numpy and onnxruntime a model is protected all the same; `connect` names the command."""
    (tmp_path / "m.onnx").write_bytes(craft.linear_model())
    program = """
import sys
sys.modules["numpy"] = sys.modules["onnxruntime"] = None
from pathlib import Path
from confide import ConfideError, ModelService, protect
from confide.keys.identity import Identity
from confide.serving import protecting
protecting.measure = lambda service, tee: None  # Measuring asks for the distributions, which this machine has not.
done = protect("m.onnx", ModelService("m", owner=Identity.open_or_create().public), "m.confide")
print(done.key.version)
try:
    ModelService.connect("http://127.0.0.1:9", None)
except ConfideError as error:
    print(error.code, "|", error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("1\nmodel.missing_extra | pip install numpy\n", "")
