# Plain pip and venv. TORCH=cpu|cuda|rocm chooses the wheels of PyTorch; cpu is the default, so that nobody
# downloads gigabytes of CUDA libraries by accident.
TORCH  ?= cpu
PYTHON ?= python3
VENV   ?= .venv

TORCH_VERSION := 2.13.0
CUDA ?= cu130
ROCM ?= rocm7.2
TORCH_INDEX   := https://download.pytorch.org/whl
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TORCH)

ifeq ($(TORCH),cpu)
  # Wheels for Linux carry the tag +cpu; those for macOS carry none and are CPU builds anyway.
  TORCH_SPEC := torch==$(TORCH_VERSION)$(if $(filter Darwin,$(shell uname -s)),,+cpu)
  TORCH_WHEELS := $(TORCH_INDEX)/cpu
else ifeq ($(TORCH),cuda)
  TORCH_SPEC := torch==$(TORCH_VERSION)
  TORCH_WHEELS := $(TORCH_INDEX)/$(CUDA)
else ifeq ($(TORCH),rocm)
  TORCH_SPEC := torch==$(TORCH_VERSION)
  TORCH_WHEELS := $(TORCH_INDEX)/$(ROCM)
else
  $(error TORCH=$(TORCH) is none of cpu, cuda, rocm)
endif
ifneq ($(TORCH),cpu)
  # The default index has a build of the same version number: for an accelerator ask the wanted one alone.
  TORCH_SOURCE := --index-url $(TORCH_WHEELS)
else
  TORCH_SOURCE := --extra-index-url $(TORCH_WHEELS)
endif

.PHONY: help install quickstart test test-all check format bench docs clean
help:
	@echo 'make quickstart   see it work: a small checkpoint, both layouts, parity, text'
	@echo 'make test         the tests (under 15 minutes on two cores)'
	@echo 'make test-all     the slow ones too'
	@echo 'make check        lint and types'
	@echo 'make bench        the benchmarks'
	@echo 'make docs         the figures of the documentation, drawn again'
	@echo 'TORCH=cpu|cuda|rocm chooses the PyTorch wheels (now: $(TORCH))'

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --retries 1 $(TORCH_SOURCE) '$(TORCH_SPEC)'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/zaya quickstart

test: install
	$(BIN)/python -m pytest

test-all: install
	$(BIN)/python -m pytest -m 'not gpu and not net'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/bench_forward.py

docs: install
	$(BIN)/python docs/draw.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
