# `make audit` and `make test` need only make and Python 3.11 or later: they create .venv, install the versions
# of requirements.lock, fetch weights and texts, and then do their work. A second call skips what is done.

PYTHON ?= python3
VENV   ?= .venv
BUDGET ?= 15m
JOBS   ?= 2
PY     := $(VENV)/bin/python

# nothing here downloads models behind one's back, and no tokenizer forks threads
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help audit audit-full test lint bench gpu site clean environment ready

help: ## this list
	@echo "make TARGET, with TARGET one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' Makefile
	@echo "variables: BUDGET=$(BUDGET) (audit), JOBS=$(JOBS) (test processes), PYTHON=$(PYTHON), VENV=$(VENV)," \
	    "GPU_ARGS=$(GPU_ARGS) (gpu; see $(PYTHON) -m llm_experiments gpu --help)"

audit: ready ## settle every claim, run the simulators, write records, figures and pages (within BUDGET)
	$(PY) -m reports audit --budget $(BUDGET)

audit-full: ready ## the same without a limit in time, then the README's journeys in a fresh environment
	$(PY) -m llm_experiments prepare --only smollm2
	$(PY) -m reports audit --budget none
	rm -rf .cache/fresh
	@$(MAKE) --no-print-directory environment VENV=.cache/fresh/venv
	OMP_NUM_THREADS=1 .cache/fresh/venv/bin/python -m pytest tests/journeys

test: lint ## style, types, proof-checks and unit tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile --timeout 900 theory tests

lint: ready ## style and types only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: ready ## how long checks and training steps take on this machine
	$(PY) -m theory bench
	$(PY) -m llm_experiments bench
	$(PY) -m llm_experiments bench --every

gpu: ## the trainings that want a GPU, with the Python that is there (PYTHON=...); installs nothing
	$(PYTHON) -m llm_experiments gpu $(GPU_ARGS)

site: ready ## the pages as a web site: open site/index.html, no server needed
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --config-file .ci/mkdocs.yml --site-dir ../site

clean: ## delete the environment, the caches and the web site; records and pages stay
	rm -rf $(VENV) .cache site build *.egg-info .environment.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find theory sims llm_experiments reports tests -name __pycache__ -type d -prune -exec rm -rf {} +

ready: environment
	@$(PY) sims/assets.py fetch

# The first of these that is 3.11 or later makes the environment.
environment:
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        exec "$$python" .ci/environment.py "$(VENV)"; \
	    fi; \
	done; \
	echo "error: no Python 3.11 or later found ($(PYTHON), python3, python3.13, ...):" \
	     "install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 2
