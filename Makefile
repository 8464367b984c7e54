# The front door. Every target sets up what it needs in .venv and can be run again.
# PYTHON chooses the interpreter (3.11 or newer): make install PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Processes of the tests, of 2 GB each: one more than cores, because many tests wait for a server or a killed program.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 7 ? n + 1 : 8)))
# The demo needs the program only; everything else needs the tools of developers too.
PROGRAM := $(VENV)/.program
READY := $(VENV)/.ready

# On Linux, PyPI's plain torch is a CUDA build of several gigabytes. A machine without an NVIDIA driver gets the CPU
# build instead: from where pip looks anyway if it is there, else from PyTorch's own index. TORCH=cuda or TORCH=cpu
# decides by hand. The package itself pins nothing: a user's pip install vireid takes what fits their machine.
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
CPU_INDEX := https://download.pytorch.org/whl/cpu
ifeq ($(TORCH),cpu)
  export PIP_CONSTRAINT := $(CURDIR)/constraints/cpu.txt
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_PROGRESS_BAR := off
export PIP_NO_INPUT := 1
# The tests start many processes, and each of them would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo gallery-demo lint check test test-slow test-all browser mutants pretrain study bench docs tables clean

help:
	@echo "make demo      generate a small world, train, evaluate, write an HTML report (minutes on two cores)"
	@echo "make gallery-demo  after make demo: calibrate, build, search and serve with generated people (minutes)"
	@echo "make test      the test suite (minutes on two cores)"
	@echo "make lint      lint, types, import direction, doctests"
	@echo "make check     the same, and the fast tests"
	@echo "make test-slow the slow tests: killed trainings and servers, several processes, exports, a real Milvus (minutes)"
	@echo "make test-all  all tests, also those that are rare because they take an hour or need what is not installed"
	@echo "make browser   the report and the page of the gallery in a real browser, with an accessibility checker (needs Chromium and npm)"
	@echo "make mutants   put small faults into the package, one at a time, and count those that the tests notice (hours)"
	@echo "make pretrain  train the small trunk of weights=world again, into pretrain/ (most of an hour on two cores)"
	@echo "make study     train and test what docs/results/study lacks, and write the tables (hours)"
	@echo "make bench     vireid bench: how fast vireid is here, as ratios to baselines (ten minutes)"
	@echo "make docs      build the documentation into docs/_build"
	@echo "make tables    write the tables of settings into the pages, from the code"
	@echo "make install   set up $(VENV) only"
	@echo "make clean     remove what the other targets made"

install: $(READY)

$(PROGRAM): pyproject.toml constraints/cpu.txt
	@echo "setting up $(VENV) with the $(TORCH) build of torch"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH)-$(shell uname -s),cpu-Linux)
	@$(BIN)/python -m pip install -q "torch==$$(sed -n 's/^torch==//p' constraints/cpu.txt)+cpu" 2>$(VENV)/pip.log \
	  || $(BIN)/python -m pip install -q --index-url $(CPU_INDEX) torch \
	  || { cat $(VENV)/pip.log; exit 1; }
endif
	@$(BIN)/python -m pip install -q -e ".[figures,fast-io,serve]"
	@touch $(PROGRAM)

$(READY): $(PROGRAM)
	@$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $(READY)

demo: $(PROGRAM)
	$(BIN)/vireid demo --out demo

gallery-demo: $(PROGRAM)
	$(BIN)/vireid gallery demo --out demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules src

check: lint
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not process" tests

# A file's tests share what they set up, so one process runs all of them. tests/conftest.py orders the files.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15

test: install
	$(PYTEST) -m "not slow"

# These tests start processes of their own and wait for them, but not for ever. So there are two at a time, not more.
test-slow: WORKERS = 2
test-slow: install
	$(PYTEST) -m "slow and not rare"

test-all: install
	$(PYTEST)

browser: install
	@$(BIN)/python -m pip install -q playwright
	@npm install --silent --no-save --prefix $(VENV) axe-core
	$(BIN)/python -m pytest tests/figures/test_report_in_browser.py tests/gallery/page

mutants: install
	$(BIN)/python tests/mutants.py

pretrain: install
	$(BIN)/python studies/pretrain.py --out pretrain

study: install
	$(BIN)/python studies/study.py run --jobs $(JOBS)
	$(BIN)/python studies/results.py

bench: install
	$(BIN)/vireid bench

docs: install
	@$(BIN)/python -m pip install -q -e ".[docs]"
	$(BIN)/sphinx-build -q -W -b html docs docs/_build
	@echo "docs/_build/index.html"

tables: install
	$(BIN)/python docs/tables.py

clean:
	rm -rf $(VENV) demo build dist docs/_build .pytest_cache .ruff_cache .hypothesis
