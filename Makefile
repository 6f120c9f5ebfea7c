# `make demo` and `make test` create the environment in .venv if it is missing; Python 3.11 or newer is required.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all wheel mutation check docs links recipes clean

demo: $(VENV)/.installed-report
	$(BIN)/convexadam demo --output-dir demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long"

# those that `make test` leaves out come first
test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

# with compiled CPU kernels, for this version of Python; what builds it has to be installed, because the kernels run once
wheel: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet hatchling
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

mutation: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet cosmic-ray
	$(BIN)/python benchmarks/mutation.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# the site, in site/; the examples are executed, and what they print is kept in build/tutorials until the sources change
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/method.py
	DOCS_EXECUTE=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# requests every link to another site; `make test` checks their form alone, without network
links: $(BIN)/python
	$(BIN)/python docs/check_links.py --request

# the recipes of docs/recipes.md, with the packages and versions that it names, too many for the environment of the tests
recipes: .venv-recipes/bin/python
	.venv-recipes/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-recipes/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[report]" \
		pytest beartype monai $$(sed -n 's/.*run with \([a-z]*\) \([0-9.]*\) -->/\1==\2/p' docs/recipes.md)
	PATH="$(CURDIR)/.venv-recipes/bin:$$PATH" .venv-recipes/bin/python -m pytest -W default tests/test_recipes.py

.venv-recipes/bin/python:
	$(PYTHON) -m venv .venv-recipes

# One stamp file per extra; a change of pyproject.toml or constraints.txt reinstalls.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-recipes build dist demo site
