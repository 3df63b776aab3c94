# Everything a contributor or a newcomer types. `make` alone lists it.
# Needs Python 3.11 or newer, make and a package index; pip's own configuration says which index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := api,worker,int8,embedded,s3,otel,dev

# `make demo` takes the first three, `make test` the last.
PROMPT ?= two red circles and a blue square
NFE ?= 200
OUT ?= out
PROCESSES ?= 2
JOBS ?= 200
SECONDS ?= 300
CALLS ?= 5000
export PROMPT NFE OUT

# Pulls nothing from, and leaves nothing in, the Python around it.
unexport PYTHONPATH
unexport PYTHONHOME
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test chaos fuzz check format bench train-shapes lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make the virtual environment with the locked dependencies

demo: $(INSTALLED) ## Search one image for real and show the gain (PROMPT="..." NFE=200 OUT=out)
	@$(BIN)/rollover demo "$$PROMPT" --nfe "$$NFE" --out "$$OUT"

serve: $(INSTALLED) ## The whole service on http://127.0.0.1:8000, until Ctrl-C
	@$(BIN)/rollover serve

# One thread each: the models under test are so small that threads wait for each other longer than they compute.
test: $(INSTALLED) ## The whole test suite, in two processes (PROCESSES=2)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES)

chaos: $(INSTALLED) ## Kill the running service again and again and check every promise (JOBS=200 SECONDS=300)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --jobs $(JOBS) --seconds $(SECONDS)

fuzz: $(INSTALLED) ## Call every route with what its OpenAPI document allows and does not (CALLS=5000)
	@CALLS=$(CALLS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/app/test_fuzz.py --timeout 3600 --capture no

check: $(INSTALLED) ## Formatting, lint, types and the arrows between packages
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Format and mend what can be mended mechanically
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Measure what the documentation claims, into docs/results
	@$(BIN)/python -m benchmarks

train-shapes: $(INSTALLED) ## Train the bundled model again, from nothing
	@$(BIN)/python -m models.shapes.train

lock: ## Resolve the dependencies anew into requirements.lock
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@echo "Resolving the newest versions that pyproject.toml allows ..."
	@build/lock/bin/python -m pip --disable-pip-version-check install -qq '.[$(EXTRAS),nf4]'
	@{ sed -n '/^#/p' requirements.lock; \
	   build/lock/bin/python -m pip --disable-pip-version-check freeze --all \
	     | sed -E '/^(pip|rollover)[ =]/d; s/\+[a-z0-9.]+$$//'; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock && rm -rf build/lock

clean: ## Remove what make and the tools made; data in ./var and images in ./out stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Runs once, and again when what is declared or locked changes. PyTorch goes first and alone: it is most of the wait.
$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Rollover needs Python 3.11 or newer; '$(PYTHON)' says: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; PyTorch is a large download) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -qq -c requirements.lock "$$(grep '^torch==' requirements.lock)"
	@$(PIP) install -qq -c requirements.lock -e '.[$(EXTRAS)]'
	@touch $@
