# On a machine with nothing but Python 3.11 and make. `make help` lists the targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --constraint constraints.txt
# What processes import is compiled once, at the end of an installation: else each of those that start together compiles
# it for itself, and every one does where PYTHONDONTWRITEBYTECODE is set.
COMPILE := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import streams.cli.ingest, streams.trainers.child, streams.worker, \
	streams.verify.planted.selftest as s; [s.ROSTER[name] for name in s.ROSTER]'
DEMO_ARGS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.PHONY: help demo test lint bench soak clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

$(BIN)/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

# Installed once; again only when the requirements or the pins change.
$(VENV)/.demo.stamp: pyproject.toml constraints.txt $(BIN)/uv
	@echo "installing into $(VENV) ..." >&2
	@$(UV) --editable '.[streams,demo]'
	@$(COMPILE)
	@touch $@

$(VENV)/.dev.stamp: pyproject.toml constraints.txt $(BIN)/uv
	@echo "installing into $(VENV) ..." >&2
	@$(UV) --editable '.[streams,demo,dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.demo.stamp

$(VENV)/.bench.stamp: $(VENV)/.dev.stamp
	@$(UV) --editable '.[streams,demo,dev,bench]'
	@touch $@

demo: $(VENV)/.demo.stamp ## Real market data through Kafka into every agent; DEMO_ARGS="--klines PATH"
	@$(BIN)/quantum demo $(DEMO_ARGS)

lint: $(VENV)/.dev.stamp ## Style, types, and that the generated files meet the schemas
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m schemas.generate --check
	@$(BIN)/python -m schemas.pages --check

test: lint ## Everything that must hold: lint, then all tests but the soak; PYTEST_ARGS="-k NAME"
	@$(BIN)/pytest -n 2 --dist loadfile $(PYTEST_ARGS)

bench: $(VENV)/.bench.stamp ## Measure speed: each program in benchmarks/, one after the other
	@failed=; for name in $(basename $(notdir $(filter-out %/__init__.py,$(wildcard benchmarks/*.py)))); do \
		echo "== $$name"; $(BIN)/python -m benchmarks.$$name || failed="$$failed $$name"; done; \
		test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

soak: $(VENV)/.dev.stamp ## The tests that take minutes to hours
	@$(BIN)/pytest -m soak $(PYTEST_ARGS)

clean: ## Remove the environment, caches and build products; market data and broker data stay
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	@find schemas agents streams tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
