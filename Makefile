# Everything here sets itself up: `make demo` and `make test` are the two commands to know.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0
# uv does not read pip's settings; hand it the local wheel folder where one is configured.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check vllm lock clean
help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: .venv/runtime.done ## Index the documentation, ask it questions, print cited answers
	@$(BIN)/ragstone demo

# Threads that wait for each other in a loop would only take the other worker's core.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile \
  --no-loadscope-reorder --durations 25 --durations-min 5

test: .venv/dev.done ## Run the tests that take no minutes each: no kills, trainings and real servers
	@$(PYTEST) -m "not slow and not thorough"

check: .venv/dev.done ## Format, lint, types, import contracts, size gates, every test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST)

vllm: .venvs/vllm/engine.done ## Install real vLLM for CPU, which the tests use where it is (3.3 GB)

lock: .venv/dev.done ## Resolve the locks anew
	@for lock in dev runtime image; do \
	  extras="--extra embed --extra gpu --extra postgres --excludes infra/locks/runtime-without.txt"; \
	  [ $$lock = image ] && extras="$$extras --extra classical --extra boosters --extra data --extra evals --extra monitoring --extra otel --extra s3"; \
	  [ $$lock = dev ] && extras="--all-extras --excludes infra/locks/dev-without.txt"; \
	  [ $$lock = dev ] || extras="$$extras --constraints infra/locks/dev.txt"; \
	  $(BIN)/uv pip compile pyproject.toml $$extras -q --universal --no-header --generate-hashes --no-annotate \
	    --no-emit-package torch --no-emit-package uv $(LOCK_OPTIONS) -o infra/locks/$$lock.txt || exit 1; done
	@$(BIN)/uv pip compile infra/locks/engine.in --excludes infra/locks/engine-without.txt -q --no-header \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate \
	  --no-emit-package torch $(LOCK_OPTIONS) -o infra/locks/engine.txt

clean: ## Remove the virtual environment and caches
	rm -rf .venv .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The lock is installed as it stands, every wheel checked against its hash. What runs the service needs no
# torch. The tests do: it comes first and alone, because its wheel is chosen for the machine (CPU or CUDA).
.venv/bin/uv:
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

.venv/torch.done: | .venv/bin/uv
	@$(BIN)/python -m pip install -q --disable-pip-version-check torch==$(TORCH_VERSION)
	@touch $@

.venv/dev.done: .venv/torch.done

.venv/%.done: infra/locks/%.txt pyproject.toml | .venv/bin/uv
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r $<
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

# vLLM pins what the service wants newer, and declares three packages of CUDA that it does well without: it
# has an environment of its own, and a lock for the one platform that it has wheels for.
.venvs/vllm/engine.done: infra/locks/engine.txt | .venv/bin/uv
	@$(PYTHON) -m venv .venvs/vllm
	@.venvs/vllm/bin/python -m pip install -q --disable-pip-version-check torch==$(TORCH_VERSION)
	@$(BIN)/uv pip install -q --python .venvs/vllm/bin/python --no-deps --require-hashes --compile-bytecode -r $<
	@touch $@
