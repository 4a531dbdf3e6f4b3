# Everything runs in .venv, which the first target that needs it makes: nothing but Python 3.11 or
# 3.12 (open3d has no wheels for newer ones) and make has to be there.

BIN := .venv/bin
INSTALLED := .venv/installed
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	$$name -c '$(FITS)' 2> /dev/null && { echo $$name; break; }; done)

.PHONY: demo venv test test-slow test-golden lint format schema bench clean

demo: venv
	$(BIN)/snakemake --cores all --quiet host reason
	@echo "The report: $(CURDIR)/results/report/index.html"

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' \
		|| { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv (about 7 GB, most of it torch); this takes some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# One thread in each of the two processes: what they start would otherwise want all cores for itself.
test: export OMP_NUM_THREADS := 1
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
	$(BIN)/snakemake --lint
	@$(BIN)/pri3d schema | diff workflow/config.schema.json - \
		|| { echo "workflow/config.schema.json is out of date; run: make schema"; exit 1; }

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

schema: venv
	$(BIN)/pri3d schema > workflow/config.schema.json

# Needs real scans in $PRI3D_REAL_DATA, and a machine that does nothing else.
bench: venv
	for name in ingest overlap stages loading; do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python benchmarks/forecast.py --write

clean:
	rm -rf results .snakemake
