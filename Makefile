# `make quickstart` sets up an environment and runs the first leaderboard; `make test` checks everything.
# While working: `make fmt`, `make lint`, `make typecheck`, `make test-fast`; `make docs` builds the site in build/site.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# The repository root is a package, not a place to import from.
export PYTHONSAFEPATH = 1

.PHONY: quickstart test test-fast lint fmt typecheck docs setup setup-dev benchmarks clean

quickstart: setup
	$(BIN)/subnetbench sweep sweeps/quickstart.yaml

test: setup-dev
	$(BIN)/python tests/run_all.py

# Unit and golden tests but the slow ones: under 3 minutes on two cores, without root and without network.
test-fast: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "(unit or golden) and not slow" tests

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m vulture

fmt: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: setup-dev
	$(BIN)/mypy

docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

benchmarks: setup-dev
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -s

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
