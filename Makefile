# make demo   segments a sample photo: in napari where there is a display, into PNG files elsewhere
# make test   runs the tests, several at once (ARGS=-n0: one after the other)
# make coverage  the same with every line and branch counted, and a table of the core's packages
# make lint   style, types, layers, manifest
# make wheel  builds the wheel, installs it in an environment of its own and segments a photo with it;
#             QT=pyqt6 or QT=pyside6: with the window, PYTHON=python3.13: on another Python
# make docs   builds the documentation into site/, where a broken link is an error
# make bench  times the project beside its peers, into bench-output/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo-output
ARGS ?=
QT ?=

.PHONY: demo test coverage lint wheel docs bench clean

demo: $(VENV)/.ready
	$(BIN)/napari-deepcrf demo --out "$(OUT)" $(ARGS)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

# Without kept kernels, so that what generates their code is seen at it.
coverage: $(VENV)/.ready
	NUMBA_CACHE_DIR="$$(mktemp -d)" $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --cov --cov-report=json:coverage.json $(ARGS)
	$(BIN)/python tools/coverage_table.py coverage.json

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks tools
	$(BIN)/lint-imports
	$(BIN)/npe2 validate napari_deepcrf

wheel: $(VENV)/.ready
	BUILDER="$(BIN)/python" bash tools/check-wheel "$(PYTHON)" $(QT)

docs: $(VENV)/.ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(VENV)/.ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench,cluster]'
	$(BIN)/python benchmarks/run.py $(ARGS)

# The environment follows the two files that describe it.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	PYTHON="$(PYTHON)" bash tools/system-packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all,test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site demo-output bench-output coverage.json .coverage .pytest_cache .mypy_cache .ruff_cache
