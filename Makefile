# Every command sets up what it needs, in .venv, from the hashed requirements. PYTHON may name any Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-optimized fuzz check bench lint types layers docs lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "confide needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python requirements/demo.txt pyproject.toml
	$(PIP) install --quiet --require-hashes -r requirements/demo.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(BIN)/python requirements/dev.txt pyproject.toml
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## the main job on this machine, step by step, in under a minute
	$(BIN)/confide demo

test: $(VENV)/.dev ## the tests
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(VENV)/.dev ## the tests that take longer than ten seconds each
	$(BIN)/python -m pytest -q -m slow

test-optimized: $(VENV)/.dev ## what decides trust, again under python -OO, which removes assert statements
	$(BIN)/python -OO -m pytest -q -m "not slow" tests/wire tests/crypto tests/ledger tests/attestation tests/tees tests/channel tests/sealing tests/keys tests/broker

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.txt
	$(PIP) install --quiet --require-hashes -r requirements/fuzz.txt
	@touch $@

fuzz: $(VENV)/.fuzz ## every decoder under the fuzzer, for a minute altogether (Linux on x86-64)
	$(BIN)/python -m fuzz all --seconds 1

check: lint types layers docs ## lint, types, layering and docs

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/docs

bench: $(VENV)/.dev ## the benchmarks, each with its peer in the same run
	$(BIN)/python -m benchmarks

lock: ## write the hashed requirements anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra demo --extra fast --extra httpx --group build pyproject.toml -o requirements/demo.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra demo --extra fast --extra httpx --group build --group test --group check --group bench -c requirements/demo.txt pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --group pyproject.toml:fuzz -o requirements/fuzz.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
