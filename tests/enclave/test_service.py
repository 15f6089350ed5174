# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.enclave.service import BrokerAddress, CodeRoot, Limits, SecretPin, Service
from confide.enclave.service_file import parse_size
from confide.errors import ConfigurationError, MalformedError

OWNER = bytes(range(32))
TOML = f"""
kind = "application"
id = "acme"
requires = ["Starlette"]
egress = ["broker.example:443"]
debug = true
at_most_once = true
max_session = 60
evidence = "cached"

[options]
app = "hello:app"
names = ["a", "b"]
nested = {{ deep = true, n = -3 }}

[environment]
OMP_NUM_THREADS = "1"

[limits]
memory = "1 GiB"
max_body = "2MiB"
deadline = 5

[broker]
url = "https://broker.example"
policy = \"\"\"
tees = ["snp"]
\"\"\"

[[code]]
path = "hello"

[[secrets]]
name = "model-key"
owner = "{OWNER.hex()}"

[[models]]
name = "weights"
owner = "{OWNER.hex()}"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "service.toml"
    path.write_text(text)
    return path


def test_every_field_of_a_service_file_is_read_and_written_back_alike(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    service = Service.from_toml(write(tmp_path, TOML))
    assert service == Service(
        "application",
        "acme",
        options={"app": "hello:app", "names": ["a", "b"], "nested": {"deep": True, "n": -3}},
        code=(CodeRoot(tmp_path / "hello", "hello"),),
        requires=("starlette",),
        environment={"OMP_NUM_THREADS": "1"},
        limits=Limits(memory=1 << 30, max_body=2 << 20, deadline=5),
        egress=("broker.example:443",),
        debug=True,
        secrets=(SecretPin("model-key", OWNER),),
        models=(SecretPin("weights", OWNER),),
        broker=BrokerAddress("https://broker.example", 'tees = ["snp"]\n'),
        at_most_once=True,
        max_session=60,
        evidence="cached",
    )
    assert Service.from_toml(write(tmp_path, service.to_toml(tmp_path))) == service


def test_the_shortest_service_file_has_closed_defaults(tmp_path: Path) -> None:
    service = Service.from_toml(write(tmp_path, 'kind = "model"\nid = "a"\n'))
    assert (service.debug, service.egress, service.environment, service.secrets) == (False, (), {}, ())
    assert service.evidence == "fresh"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("egres = []", "did you mean `egress`?"),
        ("[limit]\nmemory = 1", "did you mean `limits`?"),
        ('[[code]]\npath = "hello"\nnane = "x"', "did you mean `name`?"),
        ("[limits]\nmemroy = 1", "did you mean `memory`?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_word_that_was_meant(tmp_path: Path, line: str, word: str) -> None:
    (tmp_path / "hello").mkdir()
    with pytest.raises(ConfigurationError) as caught:
        Service.from_toml(write(tmp_path, f'kind = "application"\nid = "a"\n{line}\n'))
    assert word in caught.value.hint


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../b", "", ".", "link", "a\\\\b"])
def test_code_outside_of_the_folder_of_the_service_file_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigurationError):
        Service.from_toml(
            write(folder, f'kind = "application"\nid = "a"\n[[code]]\npath = "{path}"\nname = "x"\n')
        )


def test_code_that_lies_elsewhere_cannot_be_written_into_a_service_file(tmp_path: Path) -> None:
    service = Service("application", "a", code=(CodeRoot(tmp_path / "elsewhere", "elsewhere"),))
    (tmp_path / "here").mkdir()
    with pytest.raises(ConfigurationError):
        service.to_toml(tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "size"), [("1 GiB", 1 << 30), ("512MiB", 512 << 20), ("7 B", 7), (12, 12), ("3 KiB", 3072)]
)
def test_sizes_have_binary_units(text: object, size: int) -> None:
    assert parse_size(text, "memory") == size


@pytest.mark.parametrize(
    "text", ["1 GB", "1.5 GiB", "-1 MiB", "GiB", "1  GiB", "1 gib", True, 1.0, None, "1 GiB "]
)
def test_a_size_that_is_not_one_is_refused(text: object) -> None:
    with pytest.raises(ConfigurationError):
        parse_size(text, "memory")


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONHASHSEED",
        "PYTHONBREAKPOINT", "GCONV_PATH", "GLIBC_TUNABLES", "MALLOC_CHECK_", "HTTPS_PROXY", "https_proxy", "NO_PROXY",
        "SSLKEYLOGFILE", "SSL_CERT_FILE", "OPENSSL_CONF", "DYLD_INSERT_LIBRARIES", "PATH", "TMPDIR", "CONFIDE_X",
    ],
)  # fmt: skip
def test_bnd_19_a_variable_that_steers_before_the_measurement_cannot_be_set(name: str) -> None:
    """The same service with a harmless variable is accepted; measured or not, these are refused."""
    Service("application", "a", environment={"OMP_NUM_THREADS": "/anywhere/x"})
    with pytest.raises(ConfigurationError) as caught:
        Service("application", "a", environment={name: "/anywhere/x"})
    assert caught.value.code == "configuration.environment"


BAD: list[dict[str, Any]] = [
    {"kind": "shell"},
    {"id": ""},
    {"id": "a b"},
    {"id": "a\n"},
    {"id": "../x"},
    {"options": {"rate": 0.5}},
    {"options": {1: "x"}},
    {"options": {"x": 1 << 64}},
    {"options": {"x": {1, 2}}},
    {"options": {"x": [[[[[[[[[[]]]]]]]]]]}},
    {"environment": {"A": "x\0y"}},
    {"environment": {"A": "x\ny"}},
    {"environment": {"A B": "x"}},
    {"environment": {"A": 1}},
    {"egress": ("broker.example",)},
    {"egress": ("broker.example:0",)},
    {"egress": ("broker.example:65536",)},
    {"egress": ("BROKER.example:443",)},
    {"egress": ("a..b:443",)},
    {"egress": ("*:443",)},
    {"egress": ("a.example:1", "a.example:1")},
    {"requires": ("numpy>=2",)},
    {"requires": ("numpy[x]",)},
    {"requires": ("-e .",)},
    {"secrets": (SecretPin("k", OWNER), SecretPin("k", OWNER))},
    {"max_session": 0},
    {"max_session": 86_401},
    {"evidence": "none"},
    {"debug": 1},
    {"code": (CodeRoot(Path("/a"), "x"), CodeRoot(Path("/b"), "x"))},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_what_a_manifest_cannot_say_is_refused(change: dict[str, Any]) -> None:
    Service("application", "a")
    with pytest.raises(ConfigurationError):
        Service(**{"kind": "application", "id": "a", **change})


@pytest.mark.parametrize("name", ["confide", "a.b", "1a", "a-b", "", "a\n"])
def test_code_is_imported_under_an_identifier_other_than_confide(name: str) -> None:
    with pytest.raises(ConfigurationError):
        CodeRoot(Path("/x"), name)


@pytest.mark.parametrize(
    "change", [{"memory": 0}, {"processes": 1}, {"deadline": 0}, {"max_body": True}, {"memory": 1 << 50}]
)
def test_limits_beyond_their_ranges_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        Limits(**change)


def test_a_broker_without_a_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        BrokerAddress("https://broker.example", " ")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=4), st.booleans())
def test_a_service_survives_its_description_and_its_configuration(
    options: dict[str, Any], debug: bool
) -> None:
    service = Service(
        "function",
        "a",
        options=options,
        code=(CodeRoot(Path("/somewhere/app"), "app"),),
        requires=("numpy",),
        debug=debug,
        secrets=(SecretPin("k", OWNER),),
        broker=BrokerAddress("http://127.0.0.1:1", "x = 1\n"),
    )
    assert Service.from_description(service.description()) == service
    bare = Service.from_configuration(service.configuration())
    assert bare.configuration() == service.configuration()
    assert (bare.code, bare.requires) == ((), ())


@pytest.mark.parametrize("key", sorted(set(Service("model", "a").configuration())))
def test_a_configuration_with_a_missing_or_an_unknown_field_is_refused(key: str) -> None:
    configuration = Service("model", "a").configuration()
    Service.from_configuration(configuration)
    with pytest.raises(MalformedError):
        Service.from_configuration({k: v for k, v in configuration.items() if k != key})
    with pytest.raises(MalformedError):
        Service.from_configuration({**configuration, "unknown": 1})


@pytest.mark.parametrize(
    ("change"),
    [
        {"kind": "shell"},
        {"environment": {"LD_PRELOAD": "x"}},
        {"secrets": {"k": b"short"}},
        {"egress": [1]},
        {"broker": {}},
    ],
    ids=str,
)
def test_a_hostile_configuration_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Service.from_configuration({**Service("model", "a").configuration(), **change})


@pytest.mark.parametrize("text", ["kind = ", "\xff\xfe", "[" * 5000, 'kind = "model"'])
def test_a_file_that_is_no_service_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        Service.from_toml(write(tmp_path, text))


def test_a_service_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Service.from_toml(tmp_path / "service.toml")
