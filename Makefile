# Every target makes its own environment first. PYTHON is the interpreter to make it with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Threads that sleep while they wait: on a machine that does other things too, spinning ones halve the speed.
CPU := OMP_NUM_THREADS=$(shell nproc) OMP_WAIT_POLICY=PASSIVE
# The tests start many processes, which share compiled modules
export PYTHONDONTWRITEBYTECODE :=
BENCH := model fusion activations loader mixing health end_to_end scaling startup step_overhead optimizer
DEMO_RUN := runs/digits-$(shell date +%Y%m%d-%H%M%S)
.DEFAULT_GOAL := help

.PHONY: help setup demo test test-slow test-gpu test-namespaces test-hosts faults bench bench-gpu prove-gpu gpu-offline-small check format lock clean gpu-offline

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-18s %s\n", $$1, $$2 }'

setup: $(READY)  ## Make the environment .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY)  ## Train csresnext50_ws_mi2 on handwritten digits and evaluate it (minutes, no GPU needed)
	$(BIN)/python -m backbones digits --output data/digits
	PATH="$(abspath $(BIN)):$$PATH" $(CPU) accelerate launch --config_file configs/accelerate/cpu1.yaml \
		train_imagenet.py --config configs/digits.yaml --data-dir data/digits --output $(DEMO_RUN)
	$(CPU) $(BIN)/python eval.py --ckpt $(DEMO_RUN)
	@echo 'To run these commands yourself, first: . $(BIN)/activate'

test: $(READY)  ## Run the fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(READY)  ## Run the slow tests
	$(BIN)/python -m pytest -m slow

test-gpu: $(READY)  ## Run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

faults: $(READY)  ## Try the 40 faults of a long run and print the table (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.table

test-namespaces: $(READY)  ## Train on two hosts made of network namespaces (a minute and a half, root; else skipped with the reason)
	$(BIN)/python -m pytest -m hosts tests/hosts/test_namespaces.py

test-hosts: $(READY)  ## The same, and on a real SLURM that is installed in a private root (minutes, root)
	$(BIN)/python -m pytest -m hosts tests/hosts

bench: $(READY)  ## Measure all that a CPU can, against peers, and write the tables (15 minutes; leave the machine alone)
	for each in $(BENCH); do echo "== $$each"; OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
		$(BIN)/python -m benchmarks.$$each --json benchmarks/results/$$each-cpu.json || exit 1; done
	$(BIN)/python -m benchmarks.tables

prove-gpu: $(READY)  ## Check and measure all that needs a GPU and write benchmarks/results/gpu.md (10 minutes)
	$(BIN)/python -m benchmarks.prove_gpu

bench-gpu: $(READY)  ## Measure the mixing on a GPU
	$(BIN)/python -m benchmarks.mixing --devices cuda --json benchmarks/results/mixing-gpu.json

gpu-offline-small: $(READY)  ## Check the code for GPUs without one: kernels in Triton's interpreter, and compiled (a minute and a half)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n 2 -m interpreter tests/layers/kernels
	$(BIN)/python -m benchmarks.offline.machine_code --small

gpu-offline: $(READY)  ## The same for every layer and architecture, and the tables of compiled steps (long)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -n 2 -m interpreter tests/layers/kernels
	$(BIN)/python -m pytest -m '' tests/benchmarks/offline
	$(BIN)/python -m benchmarks.offline.machine_code --json benchmarks/results/machine-code.json
	$(BIN)/python -m benchmarks.offline.floor --json tests/fixtures/compiled_floor.json
	$(BIN)/python -m benchmarks.offline.table

check: $(READY)  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(READY)  ## Mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Pin every dependency anew in requirements.lock
	$(BIN)/pip-compile --quiet --extra train --extra demo --extra dev --generate-hashes --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements.lock pyproject.toml

clean:  ## Remove the environment and caches (not data/ and runs/)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
