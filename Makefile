# `make quickstart` sets up an environment and runs the first leaderboard; `make test` checks everything.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# The repository root is a package, not a place to import from.
export PYTHONSAFEPATH = 1

.PHONY: quickstart test setup setup-dev benchmarks clean

quickstart: setup
	$(BIN)/subnetbench sweep sweeps/quickstart.yaml

test: setup-dev
	$(BIN)/python tests/run_all.py

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
	rm -rf build *.egg-info .mypy_cache .ruff_cache .hypothesis
