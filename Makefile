# make demo  set up and run the whole way: record, train, federate, evaluate, report
# make benchmark-federation  measure rounds, attacks, speed-up with agents; fill the tables of FEDORA and of six feeders,
#            which go on from benchmarks/federation_*.json: remove a file to begin anew
# make test  set up, then the lint gate and all tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# One thread per process: Ray does the parallel work, and oversubscribed BLAS pools are several times slower.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export NUMEXPR_NUM_THREADS ?= 1

.PHONY: demo test setup lint format constraints clean benchmark-federation
.DELETE_ON_ERROR:

demo: setup
	$(BIN)/gridray demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

benchmark-federation: setup
	$(BIN)/python benchmarks/federation.py overhead benchmarks/federation_overhead.json
	$(BIN)/python benchmarks/federation.py attacks benchmarks/federation_attacks.json
	$(BIN)/python benchmarks/federation.py tabular benchmarks/federation_tabular.json
	$(BIN)/python benchmarks/federation.py fedora benchmarks/federation_fedora.json
	$(BIN)/python benchmarks/federation.py headline benchmarks/federation_headline.json

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "GridRay needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --cache-dir .ruff_cache/imports
	$(BIN)/mypy
	$(BIN)/vulture
	$(BIN)/deptry .
	$(BIN)/codespell

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

# Datasets, bundles and reports are yours: clean leaves them.
clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
