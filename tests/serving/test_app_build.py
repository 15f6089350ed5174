# SPDX-License-Identifier: Apache-2.0
"""Building the service inside: which protected files are opened, what is loaded from them, and what is vouched for."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from confide.crypto.secret import Secret
from confide.crypto.signing import SigningKey
from confide.enclave.context import Context
from confide.enclave.service import Limits
from confide.errors import ConfideError, ConfigurationError
from confide.frameworks import onnx
from confide.sealing.protected_file import Entry, write
from confide.serving import open_inference as oip
from confide.serving.app import build
from confide.serving.model_service import ModelService
from confide.serving.settings import ModelEntry, ModelSettings
from support import onnx_bytes as craft
from support.asgi_call import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWNER = SigningKey.from_bytes(bytes(range(32)))
KEY = Secret(b"k" * 32)


def protect(
    path: Path,
    model: bytes,
    *,
    name: str = "linear",
    signer: SigningKey = OWNER,
    key: Secret = KEY,
    entry: str = "model.onnx",
    metadata: dict[str, object] | None = None,
) -> None:
    write(
        path,
        [Entry(entry, model)],
        key=key,
        signer=signer,
        name=name,
        version=1,
        metadata={"format": "onnx"} if metadata is None else metadata,
        sync=False,
    )


@contextmanager
def context(service: ModelService, files: dict[str, Path], key: Secret = KEY) -> Iterator[Context]:
    """The enclave's own Context, over files that the host has lent; there is no TEE behind it, and none is asked."""
    descriptors = {name: os.open(path, os.O_RDONLY) for name, path in files.items()}
    unused: Any = None
    try:
        yield Context(
            service=service,
            attester=unused,
            secrets=dict.fromkeys(files, key),
            data=descriptors,
            storage=None,
            egress=unused,
            log=lambda event, fields: None,
        )
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def service(**options: Any) -> ModelService:
    return ModelService("linear", owner=OWNER.public, id="acme", **options)


def build_with(path: Path, chosen: ModelService | None = None, key: Secret = KEY) -> Any:
    chosen = chosen or service()
    with context(chosen, {"linear": path}, key) as given:
        return build(chosen.options, given)


def test_what_is_served_is_what_was_protected(tmp_path: Path) -> None:
    path = tmp_path / "linear.confide"
    protect(path, craft.linear_model(3, [1, 2, 4], 0.5))
    built = build_with(path)
    parts, length = oip.compose_request({"x": np.array([[1, 1, 1]], np.float32)})
    answer = call(
        built.app, "POST", "/v2/models/linear/infer", b"".join(parts), [(oip.HEADER_LENGTH, str(length))]
    )

    assert answer.status == 200
    arrays = oip.read_response(memoryview(answer.body), answer.headers[oip.HEADER_LENGTH])
    assert arrays["y"].tolist() == [[7.5]]
    assert built.content == {"linear": hashlib.sha256(craft.linear_model(3, [1, 2, 4], 0.5)).digest()}


def test_the_decrypted_file_is_erased_once_the_framework_has_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "linear.confide"
    protect(path, craft.linear_model())
    load, seen = onnx.load, []

    def watched(parts: Any, **options: Any) -> Any:
        seen.append(parts["model.onnx"])
        assert bytes(seen[0]) == craft.linear_model()
        return load(parts, **options)

    monkeypatch.setattr(onnx, "load", watched)
    build_with(path)

    assert bytes(seen[0]) == bytes(len(craft.linear_model()))


def test_several_models_are_served_beside_each_other(tmp_path: Path) -> None:
    protect(tmp_path / "a", craft.linear_model(bias=1), name="a")
    protect(tmp_path / "b", craft.linear_model(bias=2), name="b")
    chosen = ModelService(owner=OWNER.public, models=(ModelEntry("a"), ModelEntry("b", version="7")))
    with context(chosen, {"a": tmp_path / "a", "b": tmp_path / "b"}) as given:
        built = build(chosen.options, given)

    assert set(built.content) == {"a", "b"}
    assert call(built.app, "GET", "/v2/models/b/versions/7/ready").status == 200
    assert call(built.app, "GET", "/v2/models/a/versions/7/ready").status == 404


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: protect(path, craft.linear_model(), signer=SigningKey.generate()), "sealing.signer"),
        (lambda path: protect(path, craft.linear_model(), name="other"), "sealing.policy_mismatch"),
        (lambda path: protect(path, craft.linear_model(), key=Secret(b"x" * 32)), "sealing.policy_mismatch"),
        (flip, "sealing.integrity"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "sealing.integrity"),
        (lambda path: path.write_bytes(craft.linear_model()), "sealing.unsupported_version"),
        (
            lambda path: protect(path, craft.linear_model(), metadata={"format": "data"}),
            "model.unsafe_format",
        ),
        (lambda path: protect(path, craft.linear_model(), metadata={}), "model.unsafe_format"),
        (lambda path: protect(path, craft.linear_model(), entry="other.onnx"), "model.unsafe_format"),
        (lambda path: protect(path, b"\x80\x04pickle"), "model.unsafe_format"),
        (lambda path: protect(path, craft.identity_model(16)), "model.schema"),
    ],
)
def test_ml_06_another_file_under_the_models_name_is_refused(
    change: Callable[[Path], object], code: str, tmp_path: Path
) -> None:
    """A host lends what it likes: only the pinned owner's file of this name, with the released key, is loaded."""
    path = tmp_path / "linear.confide"
    protect(path, craft.linear_model())
    build_with(path)
    change(path)
    with pytest.raises(ConfideError) as caught:
        build_with(path)

    assert caught.value.code == code


def test_ml_06_a_path_that_is_swapped_after_it_was_lent_changes_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "linear.confide", tmp_path / "other"
    protect(path, craft.linear_model(bias=1))
    protect(other, craft.linear_model(bias=2))
    chosen = service()
    with context(chosen, {"linear": path}) as given:
        other.replace(path)
        built = build(chosen.options, given)

    assert built.content["linear"] == hashlib.sha256(craft.linear_model(bias=1)).digest()


def test_a_service_without_the_file_the_key_or_the_pin_serves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "linear.confide"
    protect(path, craft.linear_model())
    chosen = service()
    with context(chosen, {}) as given, pytest.raises(ConfideError) as no_file:
        build(chosen.options, given)
    with context(chosen, {"linear": path}) as given, pytest.raises(ConfideError) as no_pin:
        build({"models": {"unpinned": {}}}, given)

    assert no_file.value.code in {"enclave.bad_state", "enclave.key_missing"}
    assert no_pin.value.code == "enclave.bad_state"


def test_limits_of_the_service_reach_the_app(tmp_path: Path) -> None:
    path = tmp_path / "linear.confide"
    protect(path, craft.linear_model())
    built = build_with(path, service(limits=Limits(max_body=2048), max_output=3))
    parts, length = oip.compose_request({"x": np.array([[1, 1, 1]], np.float32)})
    headers = [(oip.HEADER_LENGTH, str(length))]

    assert call(built.app, "POST", "/v2/models/linear/infer", bytes(2049)).status == 413
    assert call(built.app, "POST", "/v2/models/linear/infer", b"".join(parts), headers).status == 413


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"models": {}},
        {"models": {"": {}}},
        {"models": {"a/b": {}}},
        {"models": {"a": {"format": "pickle"}}},
        {"models": {"a": {"version": ""}}},
        {"models": {"a": {"path": "x"}}},
        {"models": {"a": {}}, "workers": 0},
        {"models": {"a": {}}, "threads": True},
        {"models": {"a": {}}, "waiting": -1},
        {"models": {"a": {}}, "non_finite": 1},
        {"models": {"a": {}}, "unknown": 1},
        {"models": {f"m{index}": {} for index in range(65)}},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    assert ModelSettings.from_options({"models": {"a": {}}}).models == (ModelEntry("a"),)
    with pytest.raises(ConfigurationError):
        ModelSettings.from_options(options)


def test_a_model_service_is_the_same_through_its_file(tmp_path: Path) -> None:
    chosen = service(workers=2, waiting=7, non_finite=True)
    (tmp_path / "service.toml").write_text(chosen.to_toml(tmp_path))
    again = ModelService.from_toml(tmp_path / "service.toml")

    assert again == chosen
    assert again.environment["ORT_DISABLE_TELEMETRY"] == "1"
    configuration: Any = chosen.configuration()
    assert ModelService.from_configuration(configuration).options == chosen.options
    with pytest.raises(ConfigurationError):
        ModelService("a", owner=OWNER.public, workers=0)
    with pytest.raises(ConfigurationError):
        ModelService("a", owner=b"short")
    ModelService("a", owner=OWNER.public, workers=8, threads=5)
    with pytest.raises(ConfigurationError) as caught:
        ModelService("a", owner=OWNER.public, workers=9, threads=5)
    assert "processes=69" in caught.value.hint
