# Every command of the project. `make test` and `make demo` need nothing but Python 3.11, pip and git.

PYTHON ?= python3.11
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

# Two workers on two cores: more threads in each would only contend.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help venv test lint format types imports unit fuzz zoo bench demo clean

help: ## Say what each target does.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/installed ## Build the virtual environment from the pinned packages.

# torch goes first: the packages that need it then take the build that is there.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench,cluster,demo,dev,evaluation,zoo]"
	touch $@

test: lint types imports unit ## Lint, types, layers, then every test and doctest.

lint: venv ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: venv ## Mend style and format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: venv ## Check types.
	$(BIN)/mypy

imports: venv ## Check that imports go strictly downward.
	$(BIN)/lint-imports --no-cache

unit: venv ## Run every test and doctest.
	$(PYTEST) $(PARALLEL)

fuzz: venv ## Prune 2,000 random networks.
	$(PYTEST) $(PARALLEL) --hypothesis-profile=fuzz tests/properties

zoo: venv ## Prune every network of the zoo and print the table.
	$(BIN)/python -m benchmarks.zoo

bench: venv ## Measure the time and memory of each stage, and compare them with the saved ratios.
	mkdir -p .benchmarks
	$(PYTEST) benchmarks --benchmark-enable --benchmark-only --benchmark-json=.benchmarks/stages.json
	$(BIN)/python -m benchmarks.stages_table .benchmarks/stages.json
	$(BIN)/python -m benchmarks.regressions .benchmarks/stages.json

demo: OMP_NUM_THREADS = $(WORKERS)
demo: venv ## Prune a speech separator to half its MACs, recover it, listen.
	$(BIN)/python -m benchmarks.demo

clean: ## Remove what the other targets built.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
