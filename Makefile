# Two commands on a fresh clone do everything: `make demo` and `make test`.
# Both make the environment in .venv first. Python 3.11 or later and a C compiler are needed.

PYTHON ?= python3
VENV   ?= .venv
# The release the project is tested with; on Linux without a GPU, point pip at the CPU build.
TORCH  ?= torch==2.13.0
OUT    ?= out/demo
# Processes that share the tests, one thread each; single tests gain nothing from a second thread.
WORKERS ?= 2

BIN := $(VENV)/bin
# Byte code is compiled when a module is first read, and kept, whatever the environment says: pip
# would compile all modules there are, and hundreds of processes each what they read.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint types unit pages docs bench clean

demo: $(VENV)/installed
	$(BIN)/likely compare --data digits --out $(OUT)

# Types and the pages are checked side by side, each on one core.
test: lint
	$(MAKE) -j2 pages types
	$(MAKE) unit

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test
	$(BIN)/mypy

# The tests of a file share what it keeps, in one worker. Files that compile the same kernels run in
# a row (tests/conftest.py), while the other worker is at the longest one.
unit: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --doctest-modules src/likely tests

# Every page read and every link of it resolved, and none written.
pages: $(VENV)/installed-test
	$(BIN)/python -m sphinx -W --keep-going -q -b dummy docs docs/_build/dummy

docs: $(VENV)/installed-test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) '$(TORCH)'
	$(PIP) -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(PIP) '$(TORCH)'
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist docs/_build out
