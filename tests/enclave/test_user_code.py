# SPDX-License-Identifier: Apache-2.0
"""Which files a user's code is measured from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from confide.enclave.application import Application
from confide.enclave.service import CodeRoot
from confide.enclave.user_code import code_roots, resolve, split_target
from confide.errors import ConfigurationError, EnclaveError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "target",
    ["", "app", "a:b:c", "a.b:", ":app", "a-b:app", "a:b.c", "../x:app", "a\n:b", "a..b:c", "é:app", None, 5],
)
def test_a_target_is_a_module_and_an_attribute(target: Any) -> None:
    with pytest.raises(ConfigurationError):
        split_target(target)
    with pytest.raises(ConfigurationError):
        resolve(target)


def test_a_package_is_measured_whole_and_a_module_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_for_tests"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('finding code does not run it')\n")
    (package / "web.py").write_text("")
    (tmp_path / "lone_for_tests.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert code_roots("shop_for_tests.web") == (CodeRoot(package, "shop_for_tests"),)
    assert code_roots("lone_for_tests") == (CodeRoot(tmp_path / "lone_for_tests.py", "lone_for_tests"),)
    assert "shop_for_tests" not in sys.modules


def test_given_places_come_first_and_others_join_them(tmp_path: Path) -> None:
    (tmp_path / "helper_code.py").write_text("")
    (tmp_path / "main_code.py").write_text("")
    roots = code_roots("main_code", [tmp_path / "main_code.py", tmp_path / "helper_code.py"])
    assert {root.name for root in roots} == {"main_code", "helper_code"}
    service = Application("main_code:app", code=[tmp_path / "main_code.py"])
    assert dict(service.options) == {"app": "main_code:app"}


def test_installed_and_absent_code_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="installed") as caught:
        code_roots("uvicorn")
    assert "requires" in caught.value.hint
    for missing in ("surely_no_such_module_anywhere", "sys", "_ssl"):
        with pytest.raises(ConfigurationError, match="not found"):
            code_roots(missing)
    with pytest.raises(ConfigurationError):
        code_roots("x", [tmp_path / "absent.py"])


def test_inside_a_module_must_have_what_was_named() -> None:
    with pytest.raises(EnclaveError) as caught:
        resolve("json:no_such_name")
    assert caught.value.code == "enclave.unmeasured"
    with pytest.raises(EnclaveError) as caught:
        resolve("surely_no_such_module_anywhere:app")
    assert caught.value.code == "enclave.unmeasured"
