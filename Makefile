# Thin names over the real commands. `make quick` is the paper; everything else is for those who work on it (make help).
# A Python from 3.11 to 3.13 is found where none is named: make PYTHON=/path/to/python3.12.
PYTHON ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
# Python keeps the bytecode of what it imports, also where the environment forbids it: else each of a run's hundreds of
# processes compiles Snakemake and all that it imports.
export PYTHONDONTWRITEBYTECODE =
# Snakemake keeps a cache in the home; where that cannot be written, as in a container, beside the results.
ifneq ($(shell mkdir -p "$${XDG_CACHE_HOME:-$$HOME/.cache}" 2>/dev/null && test -w "$${XDG_CACHE_HOME:-$$HOME/.cache}" && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/results/.cache
endif

.PHONY: help quick paper site linkcheck test test-cluster-smoke test-cluster test-slurm test-faults lint format bench bench-symmetries gpu schema lock clean

quick: $(INSTALLED)  ## make every figure at the default scale
	$(BIN)/snakemake --cores all
	@$(BIN)/mirrorsym summary

paper: $(INSTALLED)  ## make every figure and the report at the default scale
	$(BIN)/snakemake --cores all paper
	@$(BIN)/mirrorsym summary

site: $(INSTALLED)  ## build the page of the default scale: one folder, paper/site, that needs no network
	$(BIN)/snakemake --cores all paper
	$(BIN)/mirrorsym site

linkcheck: $(INSTALLED)  ## ask whether the addresses that the page names elsewhere answer; needs network
	$(BIN)/mirrorsym site --linkcheck

$(INSTALLED): envs/requirements.lock envs/install.sh pyproject.toml
	@sh envs/install.sh $(PYTHON)
	@touch $@

test: $(INSTALLED) lint  ## lint and run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-cluster-smoke: $(INSTALLED)  ## on a real SLURM of this machine: the tiny paper, a preemption, Ctrl-C
	$(BIN)/python -m pytest tests/cluster -m smoke

# The cluster's tests mostly wait, so the machine's run beside them.
test-cluster: $(INSTALLED)  ## the workflow on a real SLURM of this machine with all its faults, and those of one machine
	$(MAKE) -j 2 --output-sync=target test-slurm test-faults

test-slurm: $(INSTALLED)  ## the part of test-cluster on a real SLURM
	$(BIN)/python -m pytest tests/cluster

test-faults: $(INSTALLED)  ## the part of test-cluster of one machine: full disks, kills, clocks
	$(BIN)/python -m pytest tests/faults

lint: $(INSTALLED)  ## check style, types, rules and the schema; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/snakemake --lint
	@$(BIN)/nbstripout --verify notebooks/*.ipynb docs/*.ipynb || { echo "what running them left in notebooks: make format strips it"; exit 1; }
	@$(BIN)/mirrorsym schema | cmp -s - config/schema.json || { echo "config/schema.json is not that of the code: make schema"; exit 1; }

format: $(INSTALLED)  ## mend style, strip notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow
	$(BIN)/nbstripout notebooks/*.ipynb docs/*.ipynb

schema: $(INSTALLED)  ## remake the configuration's schema
	$(BIN)/mirrorsym schema > config/schema.json

bench: $(INSTALLED)  ## speed beside plain PyTorch, into results/bench.json, and of training steps, also in bfloat16
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.precision

# The machine's own Python and torch: nothing is installed or downloaded.
GPU_PYTHON ?= python3
OUT ?= results/gpu
gpu:  ## on a GPU: tests, rates, memory, trainings, into OUT; ARCHIVE=, WHEELS=, MINUTES=8, SCALE=paper, DEVICE=cuda
	PYTHONPATH="$(CURDIR)/src:$$PYTHONPATH" $(GPU_PYTHON) -m benchmarks.gpu --out "$(OUT)" \
	  $(if $(ARCHIVE),--archive "$(ARCHIVE)") $(if $(WHEELS),--wheels "$(WHEELS)") \
	  $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SCALE),--scale $(SCALE)) $(if $(DEVICE),--device $(DEVICE))

bench-symmetries: $(INSTALLED)  ## the symmetries of the zoo's networks, into docs/zoo.md; half an hour
	$(BIN)/python -m benchmarks.zoo

lock:  ## remake the hash-pinned lock; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-package triton --no-emit-package cuda-bindings \
	  --no-emit-package cuda-pathfinder envs/requirements.in -o envs/requirements.lock

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-20s %s\n' "$$name" "$$what"; done

clean:  ## remove what is quick to remake; results and checkpoints stay
	rm -rf paper/*/ results/logs results/benchmarks results/.cache .pytest_cache .mypy_cache .ruff_cache
