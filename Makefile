# Everything runs in .venv, which the first target makes. Only make and Python 3.11 or 3.12 (open3d
# has no wheels for newer versions) have to be installed.

BIN := .venv/bin
INSTALLED := .venv/installed
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
OLD_TOOLS = $(abspath $(BIN)/../minkowski-build)
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	$$name -c '$(FITS)' 2> /dev/null && { echo $$name; break; }; done)

.PHONY: demo venv test test-slow test-golden minkowski test-minkowski lint format schema bench bench-effect bench-effect3d clean

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

# One thread in each of the two processes: otherwise each would use all cores, and their waiting
# threads would slow down the other process.
test: export OMP_NUM_THREADS := 1
test: export OMP_WAIT_POLICY := PASSIVE
test: venv
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow and not minkowski'

test-slow: venv
	$(BIN)/python -m pytest -m slow

test-golden: venv
	$(BIN)/python -m pytest -m golden

# MinkowskiEngine, another engine for sparse convolutions, built for the CPU (docs/sparse.md). Its
# setup needs an old setuptools, which is installed into a folder of its own.
minkowski: export MAX_JOBS ?= 2
minkowski: venv
	@printf '#include <cblas.h>\nint main() { return 0; }' \
		| $(CXX) -x c++ - -lopenblas -o $(BIN)/../compiles \
		|| { echo "A C++ compiler and OpenBLAS with its headers are needed;" \
			"on Debian: apt-get install g++ libopenblas-dev"; exit 1; }
	@rm $(BIN)/../compiles
	@echo "Compiling MinkowskiEngine with $(MAX_JOBS) jobs (MAX_JOBS); this takes 10 to 30 minutes."
	$(BIN)/python -m pip install --quiet --upgrade --target $(OLD_TOOLS) 'setuptools<70' wheel ninja
	PATH="$(abspath $(BIN)):$(OLD_TOOLS)/bin:$$PATH" PYTHONPATH=$(OLD_TOOLS) \
		$(BIN)/python -m pip install --no-deps --no-build-isolation --no-cache-dir \
		--config-settings='--global-option=--cpu_only --blas=openblas' MinkowskiEngine==0.5.4

test-minkowski: venv
	$(BIN)/python -m pytest -m minkowski

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	@$(BIN)/pri3d settings --schema | diff workflow/config.schema.json - \
		|| { echo "workflow/config.schema.json is out of date; run: make schema"; exit 1; }
	@$(BIN)/pri3d settings --markdown | diff docs/configuration.md - \
		|| { echo "docs/configuration.md is out of date; run: make schema"; exit 1; }

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

schema: venv
	$(BIN)/pri3d settings --schema > workflow/config.schema.json
	$(BIN)/pri3d settings --markdown > docs/configuration.md

# Needs real scans in $PRI3D_REAL_DATA and an idle machine.
bench: venv
	for name in ingest overlap stages loading sparse; do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python benchmarks/forecast.py --write

# Does pretraining help when labels are few? 107 minutes on two cores; a stopped run resumes.
bench-effect: venv
	$(BIN)/python benchmarks/effect.py --json benchmarks/results/effect.json
	$(BIN)/python benchmarks/forecast.py --write

# The same for 3D networks: PPKT, PointContrast and the baselines, segmenting clouds. 111 minutes.
bench-effect3d: venv
	$(BIN)/python benchmarks/effect3d.py --json benchmarks/results/effect3d.json
	$(BIN)/python benchmarks/forecast.py --write

clean:
	rm -rf results .snakemake
