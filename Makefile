# Everything runs in .venv, which the first target that needs it makes: nothing but Python 3.11 or
# newer and make has to be there.

PYTHON := $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell command -v $(name))))
BIN := .venv/bin
INSTALLED := .venv/installed
RESULTS := results

.PHONY: venv demo test test-slow test-golden lint format schema bench clean
.DEFAULT_GOAL := demo

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; give it as: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/snakemake --cores all --quiet rules
	@echo "The report: $(CURDIR)/results/report/index.html"

test: venv
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

test-slow: venv
	$(BIN)/python -m pytest -m slow

test-golden: venv
	$(BIN)/python -m pytest -m golden

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/pri3d schema | diff workflow/config.schema.json - \
		|| { echo "workflow/config.schema.json is out of date; run: make schema"; exit 1; }

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

schema: venv
	$(BIN)/pri3d schema > workflow/config.schema.json

bench: venv
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf results .snakemake
