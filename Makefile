# The project's commands. Each makes the virtual environment it needs; CI runs `make test` and nothing else.
#
#   make demo PYTHON=python3.12      with another Python than python3
#   make unit ARGS="-k codec -x"     more arguments for pytest, or for the demo

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
SETUP := $(PYTHON) .ci/environment.py $(VENV)
PYTEST := $(BIN)/python -m pytest
NODE = $(or $(shell command -v node),$(BIN)/node)
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# Where it is set, as in many containers, each of the thousand processes of a test run compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

# In turn, whatever -j says, since most targets make the environment; but for two that `test` runs when it is there.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.PHONY: help demo lab test lint types layers unit notebooks browser wheel contact-sheet pictures test-all mutants chaos bench format clean env npm redis chromium programs

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: ## import a table while its processes are killed; 30 s
	@$(SETUP) demo
	@$(BIN)/nbjobs demo $(ARGS)

lab: ## open the tutorials 01 to 04 in JupyterLab
	@$(SETUP) lab demo
	@$(BIN)/jupyter lab $(AS_ROOT) notebooks/01_first_card.ipynb $(ARGS)

test: programs lint types layers unit browser ## all tests: what CI runs
	@$(MAKE) SIDE_BY_SIDE=1 -j2 $(if $(filter output-sync,$(.FEATURES)),-Otarget) notebooks wheel
	@echo "make: all tests passed with $$($(BIN)/python -V)"

lint: env ## style, by ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env npm ## types, by mypy and tsc
	$(BIN)/mypy nbjobs benchmarks tests/typing_api.py
	$(NODE) labextension/node_modules/typescript/bin/tsc --project labextension

layers: env ## who imports whom, by import-linter
	$(BIN)/lint-imports

unit: env redis ## unit and integration tests on a real Redis
	$(PYTEST) -n 3 --dist worksteal -m "not browser and not wheel" $(ARGS)

notebooks: env ## run the notebooks and compare what they print
	.ci/isolated $(VENV) $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=300 --timeout=600 notebooks $(ARGS)

browser: env npm chromium ## the card in JupyterLab, in Chromium
	$(PYTEST) -n 2 --dist worksteal -m browser tests/browser $(ARGS)

contact-sheet: env chromium ## draw every state of the card into docs/images/contact-sheet.png
	$(BIN)/python -m tests.browser.sheet

pictures: env chromium ## walk through README and tutorials in JupyterLab, and take their pictures
	$(BIN)/python -m tests.browser.walk

wheel: env ## build the wheel, install it elsewhere, use it there
	$(PYTEST) -m wheel tests/test_wheel.py $(ARGS)

test-all: ## all tests with each Python of 3.10 to 3.13 that is here
	@MAKE="$(MAKE)" .ci/test-all

mutants: env ## break the code on purpose: each time the tests must fail
	$(BIN)/python -m tests.mutants $(ARGS)

chaos: env redis ## minutes of bad weather: kills, cuts, partitions; what must be zero is zero
	$(BIN)/python -m tests.chaos $(ARGS)

bench: env ## measure, and write benchmarks/results.json
	$(BIN)/python benchmarks/run.py $(ARGS)

format: env ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the commands above made
	rm -rf .venv .venv-3.* dist build artifacts labextension/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find nbjobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

env:
	@$(SETUP) dev

npm:
	@$(SETUP) --npm

redis:
	@$(SETUP) --needs redis-server

chromium:
	@$(SETUP) --needs chromium

programs: # first of all, so that a machine which lacks one says so at once
	@$(SETUP) --needs redis-server --needs chromium
