# Each target sets up what it needs in .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What test-fast leaves out: commands, examples, conversions, several ranks, bundled models.
LONGER := cli inference training/test_ranks.py test_checkpoints.py test_examples.py test_readme.py test_scripts.py test_diagnostics.py

.PHONY: help demo web docs test test-fast test-slow test-cluster lint format clean
help:
	@echo "make demo    install, apply a bundled style, train a small one for two minutes: out/demo/index.html"
	@echo "make test    install with development tools; lint, types, import contracts, all tests but the slow ones"
	@echo "make test-fast  the tests of a minute, for everyday work"
	@echo "make test-slow  the slow tests: several ranks, kills, compilation, exports, training by the README's commands"
	@echo "make test-cluster  start a Slurm of two nodes on this machine and train on it; needs root"
	@echo "make docs    build the documentation site, warnings as errors: out/docs/index.html"
	@echo "make web     build the page that applies styles in the browser: out/web; npm fetches its runtime"
	@echo "make format  bring the code into its format"
	@echo "make clean   remove .venv and everything made"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fststyle needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Use make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python scripts/demo.py

web: $(VENV)/.demo
	$(BIN)/fststyle web -o out/web

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -E --fail-on-warning --keep-going -c docs . out/docs
	@echo out/docs/index.html

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m "not slow"

test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m "not slow" $(addprefix --ignore=tests/,$(LONGER))

test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m slow

test-cluster: $(VENV)/.dev
	@command -v slurmctld >/dev/null && command -v munged >/dev/null || \
		{ echo "installing slurm-wlm and munge"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster -rs

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) out runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
