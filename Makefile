# Thin names over the real commands. `make quick` is the paper; everything else is for those who work on it (make help).
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
# Python keeps the bytecode of what it imports, also where the environment forbids it: else each of a run's hundreds of
# processes compiles Snakemake and all that it imports.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help quick paper test test-cluster-smoke test-cluster test-slurm test-faults lint format bench bench-symmetries schema lock clean

quick: $(INSTALLED)  ## make every figure at the default scale
	$(BIN)/snakemake --cores all
	@$(BIN)/mirrorsym summary

paper: $(INSTALLED)  ## make every figure and the report at the default scale
	$(BIN)/snakemake --cores all paper
	@$(BIN)/mirrorsym summary

$(INSTALLED): envs/requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

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
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	@$(BIN)/mirrorsym schema | cmp -s - config/schema.json || { echo "config/schema.json is not that of the code: make schema"; exit 1; }

format: $(INSTALLED)  ## mend style, strip notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow
	$(BIN)/nbstripout notebooks/*.ipynb

schema: $(INSTALLED)  ## remake the configuration's schema
	$(BIN)/mirrorsym schema > config/schema.json

bench: $(INSTALLED)  ## speed beside plain PyTorch, into results/bench.json, and of training steps, for mirrorsym plan
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.training

bench-symmetries: $(INSTALLED)  ## the symmetries of the zoo's networks, into docs/zoo.md; half an hour
	$(BIN)/python -m benchmarks.zoo

lock:  ## remake the hash-pinned lock; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links envs/requirements.in -o envs/requirements.lock

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-20s %s\n' "$$name" "$$what"; done

clean:  ## remove what is quick to remake; results and checkpoints stay
	rm -rf paper/*/ results/logs results/benchmarks results/.cache .pytest_cache .mypy_cache .ruff_cache
