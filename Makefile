# `make audit` runs the main job, `make test` the tests; both set up .venv on first use and start at once afterwards.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TASK ?= digits
ARGS ?=
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: audit test lint docs format bench clean

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "memspace needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (once)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@$(PIP) --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

audit: $(VENV)/.core
	@$(BIN)/memspace audit $(TASK) $(ARGS)

test: $(VENV)/.test
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# The API reference from docstrings, into build/reference/html; a warning ends it.
docs: $(VENV)/.test
	@$(BIN)/python docs/reference/build.py

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.test
	@$(BIN)/python -m benchmarks.main_job $(ARGS)

clean:
	rm -rf $(VENV) runs
