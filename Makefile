# make quickstart   install into .venv and restore the shipped example
# make test         lint, types, layers, unit and integration tests
# make lint         only the checks that take seconds
# make docs         build the site of docs/ into site/
# make wheel        build the wheel into dist/
# make clean        remove what the above made, .venv included

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := quickstart
.PHONY: quickstart test lint docs wheel clean

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet
OUT ?= quickstart-out
export PIP_DISABLE_PIP_VERSION_CHECK := 1

quickstart: $(VENV)/.installed
	@echo "== restoring the shipped example (a real T1w scan with added noise) into $(OUT)/"
	@$(BIN)/medddpm quickstart --out $(OUT) --overwrite

test: $(VENV)/.installed-dev lint
	@echo "== unit and integration tests, with coverage"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term
	@echo "== coverage of io, volume and preprocess"
	@$(BIN)/python -m coverage report --fail-under=95 \
		--include='medddpm/io/*,medddpm/volume.py,medddpm/preprocess/*'

lint: $(VENV)/.installed-dev
	@echo "== style, layers, types"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(BIN)/python -c "from importlib.util import find_spec as f; \
		assert f('torchvision') is None, 'torchvision got in: a dependency pulled it'"

# README and CHANGELOG are pages of the site too, with their links as seen from docs/
docs: $(VENV)/.installed-dev
	@echo "== building the site into site/"
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@sed 's#\[tutorial\](docs/tutorial.ipynb)#docs/tutorial.ipynb#; s#](docs/#](#g; s#(CONTRIBUTING.md)#(contributing.md)#' README.md > docs/index.md
	@$(BIN)/python pipelines/gallery.py docs/example.png
	@cp CHANGELOG.md docs/changelog.md
	@cp CONTRIBUTING.md docs/contributing.md
	@$(BIN)/mkdocs build --quiet --site-dir site

wheel: $(VENV)/.installed-dev
	@echo "== building the wheel into dist/"
	@$(BIN)/python -m hatchling build -t wheel
	@ls -l dist/*.whl

clean:
	rm -rf $(VENV) dist build site docs/index.md docs/changelog.md docs/contributing.md $(OUT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage

$(VENV)/bin/python:
	@echo "== making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'medddpm needs Python 3.11'"
	@$(PYTHON) -m venv $(VENV)

# torch first: the second step then finds it there and resolves no other build of it
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== installing torch, then medddpm, into $(VENV) (the first time takes minutes)"
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing the development tools into $(VENV)"
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@
