# Everything a person runs. Python and its packages live in .venv; nothing outside the tree is changed, except by the
# targets that say they need root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
NATIVE_SOURCES := $(shell find interpose hami/alloc hami/node -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.def' -o -name '*.map' -o -name 'CMakeLists.txt' | grep -v '^interpose/build')
BUILT := $(VENV)/.built

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test test-fast test-cluster bench lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml setup.py
	@echo "== Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --group build
	@touch $@

$(TOOLS): $(READY)
	@echo "== what the tests need"
	@$(BIN)/pip install -q --disable-pip-version-check --group dev
	@touch $@

$(BUILT): $(READY) $(NATIVE_SOURCES) pyproject.toml setup.py
	@echo "== engine, interposer and simulated driver"
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install -qq --disable-pip-version-check --no-build-isolation -e .
	@touch $@

setup: $(BUILT) $(TOOLS) ## everything the other targets need, without root

demo: $(BUILT) ## the main job on a simulated two-GPU machine: no root, no Kubernetes, no GPU
	@$(BIN)/python examples/demo/demo.py

demo-cluster: setup ## (root) leave a real one-node Kubernetes with hami in it running, and say how to use it
	@$(BIN)/python -m tests.cluster.harness up

test: setup lint ## everything: static checks, unit, contract, interposer and cluster tests
	@$(BIN)/python -m pytest tests --ignore=tests/cluster
	@$(MAKE) --no-print-directory test-cluster

test-fast: setup ## all tests that need neither root nor Kubernetes
	@$(BIN)/python -m pytest tests --ignore=tests/cluster

test-cluster: setup ## (root) the tests on a real etcd, kube-apiserver, kube-scheduler, kubelet and containerd
	@$(BIN)/python -m tests.cluster.harness prepare && $(BIN)/python -m pytest tests/cluster -v

bench: setup ## measure the filter, the engine, the hooks and shares of device time; results with the machine in bench/results
	@$(BIN)/python -m bench.filter
	@$(BIN)/python -m bench.engine
	@$(BIN)/python -m bench.families
	@$(BIN)/python -m bench.exact
	@$(BIN)/python bench/packing.py
	@$(BIN)/python bench/hooks/hooks.py
	@$(BIN)/python -m bench.share.share
	@$(BIN)/python -m bench.kills

lint: setup ## formatting, style, types, import directions, Cython and C warnings
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@PATH="$(abspath $(BIN)):$$PATH" cython-lint hami

clean: ## what was built, not the environment
	@rm -rf build interpose/build interpose/build-* *.egg-info hami/native
	@find hami -name '*.so' -delete
	@rm -f $(BUILT)
