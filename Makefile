# make demo: everything from nothing to a heatmap; make test: what CI runs.

PYTHON ?= python3.11
VENV := .venv
# One more than the two cores of CI, because slow tests also wait for processes that they start.
TEST_PROCESSES := 3
# Tests of outages wait most of the time.
ENDURANCE_PROCESSES := 6
PYTEST := pytest -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Compiled modules are kept: many tests start processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint fast-test slow-test endure bench clean

# Modules are compiled when they are first imported.
INSTALL := $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --no-compile -c constraints.txt

$(VENV)/runtime: requirements.txt constraints.txt pyproject.toml
	$(INSTALL) -e .
	touch $@

$(VENV)/development: requirements.txt constraints.txt pyproject.toml
	$(INSTALL) -e ".[dev]"
	touch $(VENV)/runtime $@  # it has all that the demo needs

demo: $(VENV)/runtime
	mlflow run . --env-manager local

lint: $(VENV)/development
	ruff check .
	ruff format --check .
	mypy
	lint-imports

fast-test: $(VENV)/development
	$(PYTEST) -m "not slow and not endure"

slow-test: $(VENV)/development
	$(PYTEST) -m "slow and not endure"

endure: $(VENV)/development
	pytest -n $(ENDURANCE_PROCESSES) --dist worksteal -m endure

test: lint
	$(PYTEST) -m "not endure"

bench: $(VENV)/runtime
	for name in data training inference tracking study; do \
		python -m benchmarks.$$name --out bench/$$name.json || exit 1; \
	done
	python -m benchmarks.inference --batches padded --out bench/inference_padded.json
	python -m benchmarks.analysis --fill 2000 --out bench/analysis.json

clean:
	rm -rf $(VENV)
