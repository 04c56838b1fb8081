# Everything there is to do here, from a machine that has Python >= 3.11 and make alone.
#
#   PYTHON  the Python that makes the environments              make test PYTHON=python3.12
#   PY      a Python that has it all, so none is made           make gpu PY=python3
#   ARGS    more arguments for pytest                           make test ARGS='-k report -x'
#   MATRIX  the torch versions, and CASES the random cases      make matrix MATRIX=2.15.0 CASES=100

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
MATRIX ?= 2.8.0 2.11.0 2.13.0 2.15.0
CASES ?= 5000
ARGS ?=

# What is installed: for every day, for checking, for each torch of the matrix.
DAILY := -e '.[test,demo,models]'
CHECKING := -e '.[dev]'
TESTING := -e '.[test]'
INSIDE := -e '.[test,integrations]'

# Given from outside, PY is ready as it is.
ifeq ($(origin PY),command line)
READY :=
READY_TO_CHECK :=
else
READY := $(VENV)/.ready
READY_TO_CHECK := $(VENV)/.ready-to-check
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test integrations lint format types docs generate matrix gpu bench peers compare scaling halves wheel clean purge

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | \
	    while IFS='|' read -r name what; do printf '%-14s %s\n' "$$name" "$$what"; done

demo: $(READY)  ## train a small GPT, plain and under turbo, and compare
	$(PY) -m examples.demo

test: $(READY)  ## run the tests, with coverage
	$(PY) -m tools.suite -m 'not slow and not gpu' $(ARGS)

# In an environment of their own: they bring much, and what they bring does not always go together. On one thread, since
# these tests fork, and OpenMP's other threads do not come along.
integrations: .integrations/.ready  ## run the tests inside the libraries that torchturbo works in
	OMP_NUM_THREADS=1 .integrations/bin/python -m pytest -q tests/integrations $(ARGS)

lint: $(READY_TO_CHECK)  ## check formatting and style
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: $(READY_TO_CHECK)  ## put formatting and style right where a tool can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(READY_TO_CHECK)  ## check the types: mypy everywhere, pyright on what users see
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

# Runs what stands in ```python and ```pycon fences of the documents it is given.
# Blocks of one document share their names, so that a later one can go on where an earlier one stopped.
define DOCUMENTS
import sys, types
import pytest
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
flags = ELLIPSIS | NORMALIZE_WHITESPACE
blocks, sessions = (PythonCodeBlockParser(doctest_optionflags=flags) for _ in range(2))
sessions.codeblock_parser.language = "pycon"
collect = Sybil(parsers=[blocks, sessions, SkipParser()], patterns=["*.md"]).pytest()
sys.exit(pytest.main(sys.argv[1:], plugins=[types.SimpleNamespace(pytest_collect_file=collect)]))
endef
export DOCUMENTS

docs: $(READY)  ## run the examples in docstrings and documents; what is generated must be fresh
	$(PY) -m pytest --doctest-modules torchturbo --ignore torchturbo/integrations
	$(PY) -c "$$DOCUMENTS" README.md $(sort $(filter-out docs/integrations.md,$(wildcard docs/*.md)))
	$(PY) -m tools.generate --check

generate: $(READY)  ## write again what is generated from the settings
	$(PY) -m tools.generate

# One line of what `tests.matrix` counted: its numbers and words, without its lists.
define SUMMARY
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
counted = json.loads(path.read_text()) if path.exists() else {"record": "none written"}
print(*(f"{name}={value}" for name, value in counted.items() if not isinstance(value, (list, dict))))
endef
export SUMMARY

matrix: $(MATRIX:%=.matrix/%/.ready)  ## random cases of the laws on each supported torch
	@rm -f $(MATRIX:%=.matrix/%.json); failed=; \
	for version in $(MATRIX); do \
	    echo "torch $$version: $(CASES) cases"; \
	    .matrix/$$version/bin/python -m tests.matrix --cases $(CASES) --json .matrix/$$version.json \
	        || failed="$$failed $$version"; \
	done; echo; \
	for version in $(MATRIX); do \
	    case " $$failed " in *" $$version "*) verdict=FAILED;; *) verdict=passed;; esac; \
	    printf 'torch %-7s %s  %s\n' $$version $$verdict \
	        "$$(.matrix/$$version/bin/python -c "$$SUMMARY" .matrix/$$version.json)"; \
	done; test -z "$$failed"

gpu: $(READY)  ## tests and benchmarks that need an accelerator
	$(PY) -m pytest -m gpu $(ARGS)
	$(PY) -m benchmarks.gpu
	$(PY) -m benchmarks.tuning --json benchmarks/records/$$(date +%F)-gpu-tuning.json
	$(PY) -m benchmarks.peers --json benchmarks/records/$$(date +%F)-gpu-peers.json

bench: $(READY)  ## what entering and leaving costs
	$(PY) -m benchmarks.overhead

peers: $(READY)  ## install Accelerate and Lightning Fabric, to be compared with
	$(call install,$(PY),constraints.txt,-e '.[peers]')

compare: $(READY)  ## the demo models under torchturbo, by hand, and under peers if they are installed
	$(PY) -m benchmarks.peers

scaling: $(READY)  ## what fp16 costs, beside the loop by hand, and peers if they are installed
	$(PY) -m benchmarks.scaling

halves: $(READY)  ## whether fp16 and bf16 reach the loss of float32
	$(PY) -m benchmarks.half_training

wheel: $(READY)  ## build the wheel into dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:  ## remove what the tools and builds left; environments stay
	rm -rf build dist out htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .venv -prune -o -name .matrix -prune -o -name .integrations -prune -o -name __pycache__ -type d -exec rm -rf {} +

purge: clean  ## and the environments too
	rm -rf $(VENV) .matrix .integrations

# $(call environment,where): an empty environment, or a sentence that says what is missing. Half of one is not left behind.
define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
    echo "torchturbo needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -1)." >&2; \
    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
@echo "Making $(1)"
@$(PYTHON) -m venv --clear $(1) || { rm -rf $(1); \
    echo "'$(PYTHON) -m venv' does not work here; on Debian and Ubuntu its package is called python3-venv." >&2; exit 1; }
endef

# $(call install,python,constraints,what): the build backend comes first, so that it is pinned like everything else.
define install
@echo "Installing $(3)"
@$(1) -m pip install --quiet --disable-pip-version-check -c $(2) hatchling editables
@$(1) -m pip install --quiet --disable-pip-version-check -c $(2) --no-build-isolation $(3)
endef

# pip is the last thing a new environment gets: where it is, the environment is whole.
$(VENV)/bin/pip:
	$(call environment,$(VENV))

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(call install,$(PY),constraints.txt,$(DAILY))
	@touch $@

$(VENV)/.ready-to-check: $(VENV)/.ready
	$(call install,$(PY),constraints.txt,$(CHECKING))
	@touch $@

.integrations/bin/pip:
	$(call environment,.integrations)

.integrations/.ready: pyproject.toml constraints.txt | .integrations/bin/pip
	$(call install,.integrations/bin/python,constraints.txt,$(INSIDE))
	@touch $@

.PRECIOUS: .matrix/%/bin/pip .matrix/%/.ready
.matrix/%/bin/pip:
	$(call environment,.matrix/$*)

# Each torch brings its own CUDA packages, so the section of the pinned one is left out.
.matrix/%/.ready: pyproject.toml constraints.txt | .matrix/%/bin/pip
	@sed '/^# torch/,/^$$/d' constraints.txt > .matrix/$*/constraints.txt
	$(call install,.matrix/$*/bin/python,.matrix/$*/constraints.txt,torch==$* $(TESTING))
	@touch $@
