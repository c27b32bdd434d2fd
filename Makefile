# Two commands do everything on a machine with Python >= 3.11 and make:
#   make demo   installs, fetches the default model, runs the main job
#   make test   installs, runs all tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A process a core, up to four (each loads the models it needs), of one thread each: small models
# gain little from a second thread, and files of tests are independent.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile
TREES  := editkit store cli tests examples benchmarks

.PHONY: help demo test test-fast test-browser test-faults quality judge lint types format bench clean

help:
	@echo "make demo       install, fetch the default model, correct it, look at the history"
	@echo "make test       install, run all tests (real models included)"
	@echo "make test-fast  the tests that need no model"
	@echo "make test-browser  the web page, in the system's chromium"
	@echo "make test-faults  kills, two writers, corruption, full disks and fuzzing at length"
	@echo "                (three quarters of an hour)"
	@echo "make quality    whether edits answer every wording, hold, and leave the rest alone (hours;"
	@echo "                EDITS=50 takes so many of each data set, SMALL=1 is a run of two minutes;"
	@echo "                needs the data, see EDITKIT_DATA)"
	@echo "make judge      trains the judge of pairs anew from benchmarks/judge, and writes its file"
	@echo "                (MINUTES=150 on two cores)"
	@echo "make lint types format bench clean"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "editkit needs Python 3.11 or newer; say which with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The package is installed in editable form, so only a change of what it needs installs again.
$(VENV)/.editkit: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing editkit into $(VENV) (the first time takes a minute or two) ..."
	$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.editkit-dev: $(VENV)/.editkit
	@echo "Installing what development needs ..."
	$(PIP) -e '.[cpu,dev]'
	@touch $@

# A method from a package of its own, registered as a stranger's would be; tests use it.
RANKONE := tests/packages/editkit-rankone
$(VENV)/.editkit-rankone: $(RANKONE)/pyproject.toml $(VENV)/.editkit-dev
	$(PIP) --no-deps -e $(RANKONE)
	@touch $@

demo: $(VENV)/.editkit
	@PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh

test: $(VENV)/.editkit-rankone
	@$(BIN)/editkit models pull smollm2-135m --quiet >/dev/null
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

test-fast: $(VENV)/.editkit-rankone
	$(BIN)/python -m pytest -m "not real and not slow"

# Part of `make test` too, where a chromium is installed.
test-browser: $(VENV)/.editkit-rankone
	@$(BIN)/editkit models pull smollm2-135m --quiet >/dev/null
	$(BIN)/python -m pytest -m browser tests/browser

# Writes benchmarks/results/faults.txt; `make test` runs the same tests at a fraction of the length.
test-faults: $(VENV)/.editkit-rankone
	$(BIN)/python tests/faults/run.py

# Prints what README.md says of it; see benchmarks/results/quality.txt.
quality: $(VENV)/.editkit-dev
	@$(BIN)/editkit models pull smollm2-135m --quiet >/dev/null
	$(BIN)/python benchmarks/quality.py $(if $(EDITS),--edits $(EDITS)) $(if $(SMALL),--small)

# Writes editkit/scope/judge.safetensors; see benchmarks/judge/README.md.
judge: $(VENV)/.editkit-dev
	@$(BIN)/editkit models pull all-minilm-l6-v2 --quiet >/dev/null
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/judge/train.py --minutes $(or $(MINUTES),150)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/judge/recall.py editkit/scope/judge.safetensors

lint: $(VENV)/.editkit-dev
	$(BIN)/ruff check $(TREES)
	$(BIN)/ruff format --check $(TREES)
	$(BIN)/codespell $(TREES) README.md CHANGELOG.md

types: $(VENV)/.editkit-rankone
	$(BIN)/mypy

format: $(VENV)/.editkit-dev
	$(BIN)/ruff check --fix $(TREES)
	$(BIN)/ruff format $(TREES)

bench: $(VENV)/.editkit-dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_edits.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
