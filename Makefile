# Plain pip and venv. TORCH=cpu|cuda|rocm chooses the wheels of PyTorch; cpu is the default, so that nobody
# downloads gigabytes of CUDA libraries by accident.
TORCH  ?= cpu
PYTHON ?= python3
VENV   ?= .venv

TORCH_VERSION := 2.13.0
CUDA ?= cu130
ROCM ?= rocm7.2
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TORCH)

# The wheels are told apart by the tag behind the version. Without it, pip would take a build for CUDA from the default
# index, or find that the build it has is good enough when another is asked for.
ifeq ($(TORCH),cpu)
  TORCH_WHEELS := cpu
  # Wheels for macOS carry no tag and are CPU builds anyway.
  TORCH_TAG := $(if $(filter Darwin,$(shell uname -s)),,+cpu)
else ifeq ($(TORCH),cuda)
  TORCH_WHEELS := $(CUDA)
  TORCH_TAG := +$(CUDA)
else ifeq ($(TORCH),rocm)
  TORCH_WHEELS := $(ROCM)
  TORCH_TAG := +$(ROCM)
else
  $(error TORCH=$(TORCH) is none of cpu, cuda, rocm)
endif

MICRO := runs/micro/shipped

# Test files beside each other. One computes on one core, so more of them than cores gain nothing.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

.PHONY: help install quickstart micro embed test test-all test-net audit check format bench docs clean
help:
	@echo 'make install      a virtual environment in $(VENV)'
	@echo 'make quickstart   see a small trained model think, alone and in rounds'
	@echo 'make micro        train that model: all stages, from raw text to a checked answer'
	@echo 'make embed        put it into the package, where the commands find it'
	@echo 'make test         the tests (under 15 minutes on two cores)'
	@echo 'make test-all     the slow ones too'
	@echo 'make test-net     the ones that need the network: our adapters with the libraries they are for'
	@echo 'make audit        check every environment, and write down what was found'
	@echo 'make check        lint, format and types'
	@echo 'make format       put the code in shape'
	@echo 'make bench        the benchmarks'
	@echo 'make docs         the figures of the documentation, drawn again'
	@echo 'make clean        remove the environment and everything built'
	@echo 'TORCH=cpu|cuda|rocm chooses the PyTorch wheels (now: $(TORCH))'

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt Makefile $(wildcard src/zaya/ops/cpu/native/*)
	@# Asked for pip, not for python: an attempt without ensurepip leaves an environment that has only the latter.
	@test -x $(BIN)/pip || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
			{ echo 'zaya needs Python 3.11 or newer, as in: make PYTHON=python3.11' >&2; exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(VENV)/.installed-*
	$(BIN)/python -m pip install --quiet --retries 1 \
		--extra-index-url https://download.pytorch.org/whl/$(TORCH_WHEELS) 'torch==$(TORCH_VERSION)$(TORCH_TAG)'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/zaya quickstart

micro: install
	$(BIN)/zaya cascade recipes/micro/cascade.toml

# Only what the cascade has finished, evaluation and card included: the manifest is written last.
embed:
	@test -f $(MICRO)/micro.json || { echo '$(MICRO) has no micro.json: make micro is not finished' >&2; exit 1; }
	mkdir -p src/zaya/micro
	cp $(MICRO)/*.* src/zaya/micro/

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m 'not gpu and not net'

test-net: install
	$(BIN)/python -m pytest -m net

audit: install
	$(BIN)/zaya env check --all --write

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks.bench_forward

docs: install
	$(BIN)/python docs/draw.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
