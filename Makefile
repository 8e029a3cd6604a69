# make demo · make test · make test-fast · make test-slow · make check · make bench — each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Bytecode is kept, whatever the environment says: tests start a hundred processes that import torch and mlflow.
export PYTHONDONTWRITEBYTECODE :=

# TORCH=cpu for the first command in a new checkout: torch without CUDA's libraries, from PyTorch's own index, whose
# address uv knows. The environment remembers it. No digest of that torch is checked, those of all else are.
TORCH ?= $(or $(shell cat $(VENV)/.ready 2>/dev/null),cuda)
LOCK_cuda := --require-hashes -r requirements.lock
LOCK_cpu := --torch-backend cpu -r requirements-cpu.lock

.PHONY: demo test test-slow test-fast test-torch-old check bench lock

# A virtual environment with exactly what the lock says, checked by digest. uv is fetched when it is missing.
$(VENV)/.ready: requirements.lock requirements-cpu.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("apf needs Python 3.11 to 3.13, this is %d.%d; say make PYTHON=python3.13" % sys.version_info[:2] if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(LOCK_$(TORCH))
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	echo $(TORCH) > $@

demo: $(VENV)/.ready
	$(BIN)/apf run params/sentiment.yaml

# A file of tests to each process in turn, those with servers first: twice as many as cores, for tests wait for servers.
# One thread each, for more would wait for each other.
JOBS = $(shell $(PYTHON) -c 'import os; print(min(4, 2 * (os.cpu_count() or 1)))')
FAST = $(addprefix tests/unit/, cache data evaluation params planning promotion quickstart search sources project/test_documents.py)
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
test: $(VENV)/.ready
	$(PYTEST) -m "not slow"

# Real servers, clusters, kills and machines. CI runs them after the others.
test-slow: $(VENV)/.ready
	$(PYTEST) -m slow

# For the loop of writing.
test-fast: $(VENV)/.ready
	$(PYTEST) -m "not slow" $(FAST)

# Training with the oldest torch that pyproject.toml admits, in an environment of its own; all else is as in the lock.
OLD_TORCH := 2.11.*
OLD := .venv-torch-old
test-torch-old: $(OLD)/.ready
	OMP_NUM_THREADS=1 $(OLD)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/unit/training \
		tests/unit/families/test_causal_lm.py tests/unit/families/test_lm.py tests/unit/planning/test_memory_plan.py

$(OLD)/.ready: requirements-cpu.lock pyproject.toml | $(VENV)/.ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLD)
	sed -n 's/^\([a-z][^ ]*==[^\\]*\)\\*$$/\1/p' requirements-cpu.lock | grep -vE '^(torch|setuptools)==' > $(OLD)/constraints.txt
	$(BIN)/uv pip install --quiet --python $(OLD)/bin/python --constraint $(OLD)/constraints.txt -e '.[dev]' 'torch==$(OLD_TORCH)'
	touch $@

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/python -m benchmarks.growth

# After a change of dependencies in pyproject.toml. Digests, no index addresses: the lock installs through any mirror.
lock: $(VENV)/.ready
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra dev --python-version 3.11 pyproject.toml -o requirements.lock
	awk '/^[^ ]/ { drop = /^(torch|triton|nvidia-[^ ]*|cuda-[^ ]*)==/ } /^torch==/ { print $$1 } !drop' \
		requirements.lock > requirements-cpu.lock
