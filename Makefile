# Everything starts here: `make` lists the targets.

PYTHON ?= python3
PROFILE ?= default
REFIT ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
CPU_INDEX := https://download.pytorch.org/whl/cpu

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-kernel check bench clean

help: ## list the targets
	@echo "GraphFlow: make <target> [PYTHON=python3.12] [PROFILE=smoke|default|paper] [REFIT=1] [ARGS=\"machine=gpu ...\"]"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "Python 3.11 or 3.12 is needed and $(PYTHON) is %d.%d: make PYTHON=/path/to/python3.11" % v)'
	@test -x $(BIN)/python || { echo "set-up 1/3: making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@# Without a GPU the CPU build is a tenth of the download. Only torch is asked for there, and failing is no harm.
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then echo "set-up 2/3: torch is there"; \
	elif [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then \
	    echo "set-up 2/3: no NVIDIA driver found, fetching the CPU build of $(TORCH)"; \
	    $(BIN)/pip install -qq --no-deps --retries 1 --timeout 20 --index-url $(CPU_INDEX) "$(TORCH)" 2>/dev/null \
	        || echo "           not to be had from $(CPU_INDEX); taking what the default index has"; \
	else echo "set-up 2/3: torch comes with the rest"; fi
	@echo "set-up 3/3: installing the pinned packages (a few minutes the first time)"
	@$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@
	@echo "set-up done"

setup: $(STAMP) ## make .venv and install everything into it (the other targets do so too)

reproduce: $(STAMP) ## run every experiment and write results/: tables, plots, report (PROFILE=smoke: 2 min)
	@echo "reproduce: profile $(PROFILE), runs in runs/, results in results/; stop and start it as you like"
	@$(BIN)/graphflow reproduce profile=$(PROFILE) $(if $(REFIT),trials.refit=true) $(ARGS)

test: $(STAMP) ## run all tests, the slow ones too
	@echo "test: all tests, offline"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m 'not gpu and not paper' $(PYTEST_ARGS)

test-kernel: $(STAMP) ## the Triton kernel in its interpreter, or on a GPU; installs Triton where torch did not (1 GB)
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/pip install -qq --editable '.[triton]'
	@echo "test-kernel: attention over bases and residuals"
	@$(BIN)/pytest -n 0 -m "$$($(BIN)/python -c 'import torch; print("" if torch.cuda.is_available() else "not gpu")')" \
	    tests/backbone/test_residual_kernel.py tests/backbone/test_residual_batch.py

check: $(STAMP) ## lint, formatting, types, floors: what CI runs
	@echo "check 1/4: ruff check"; $(BIN)/ruff check .
	@echo "check 2/4: ruff format"; $(BIN)/ruff format --check .
	@echo "check 3/4: pyright"; $(BIN)/pyright
	@echo "check 4/4: floors (import-linter)"; $(BIN)/lint-imports

bench: $(STAMP) ## latency and resident KV at 1 to 50 workflows in flight
	@echo "bench: one method and two KV modes at rising concurrency; nothing else should run on this machine"
	@$(BIN)/graphflow reproduce profile=bench $(ARGS)

clean: ## remove .venv, runs/ and caches (results/ stays)
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
