# make demo: install into .venv, then train, merge, compare and report in the tiny world.
# make test: install what the tests need, lint, type check, test.

PYTHON ?= python3.11
# On a machine without a GPU, PyTorch's own index has a smaller build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := .venv/bin
QUIET_PIP := pip --disable-pip-version-check install -q
TORCH_FROM := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test test-newest-transformers test-lowest test-sglang test-int8 test-clients lint docs clean

help: ## say what the targets do
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 32

demo: .venv/.installed-demo ## install, then run the demo: about 20 minutes on two cores
	$(BIN)/pipo run recipes/demo.yaml

# One thread a process, for there are as many processes as cores.
test: lint ## install, lint, type check, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

# ms-swift caps transformers, so on the newest one only the rooms below training are tested.
test-newest-transformers: NEWEST := .venv-newest/bin/python
test-newest-transformers: ## test model and decoding on the newest transformers, in .venv-newest
	$(PYTHON) -m venv .venv-newest
	$(PYTHON) -m tools.bounds newest > .venv-newest/requirements.txt
	$(NEWEST) -m $(QUIET_PIP) $(TORCH_FROM) "$(TORCH)"
	$(NEWEST) -m $(QUIET_PIP) --upgrade --upgrade-strategy eager -r .venv-newest/requirements.txt "$(TORCH)"
	OMP_NUM_THREADS=1 $(NEWEST) -m pytest -q -n auto tests/chat tests/model tests/decode

test-lowest: LOWEST := .venv-lowest/bin/python
test-lowest: ## test the rooms whose tests are quick at the lower bounds of pyproject.toml, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -m tools.bounds lowest > .venv-lowest/constraints.txt
	$(LOWEST) -m $(QUIET_PIP) $(TORCH_FROM) $$(grep '^torch==' .venv-lowest/constraints.txt)
	$(LOWEST) -m $(QUIET_PIP) -c .venv-lowest/constraints.txt -e ".[dev]"
	OMP_NUM_THREADS=1 $(LOWEST) -m pytest -q -n auto tests/core tests/recipes tests/chat tests/model tests/decode tests/engine \
		tests/grade tests/hub tests/data tests/serve

# An environment on top of .venv: what both have, torch above all, is there once. SGLang declares gigabytes of CUDA, which
# its server does not import on a CPU, so it comes without its dependencies.
test-sglang: SGLANG := .venv-sglang/bin/python
test-sglang: .venv/.installed-dev ## test pair models on stock SGLang, on a CPU, in .venv-sglang
	$(PYTHON) -m venv .venv-sglang
	$(SGLANG) -m tools.layer .venv
	$(SGLANG) -m $(QUIET_PIP) --no-deps -r tests/sglang_cpu/without-dependencies.txt -e tests/sglang_cpu
	$(SGLANG) -m $(QUIET_PIP) -r tests/sglang_cpu/requirements.txt "$(TORCH)"
	OMP_NUM_THREADS=1 $(SGLANG) -m pytest -q tests/sglang_cpu $(SGLANG_TESTS)

# Where torchao is installed, transformers prints two lines when a process ends, so it has an environment of its own.
test-int8: INT8 := .venv-int8/bin/python
test-int8: .venv/.installed-dev ## test matrices in 8 bits with torchao, in .venv-int8
	$(PYTHON) -m venv .venv-int8
	$(INT8) -m tools.layer .venv
	$(INT8) -m $(QUIET_PIP) --no-deps "$$(grep '^torchao==' constraints.txt)"
	OMP_NUM_THREADS=1 $(INT8) -m pytest -q tests/engine/test_quantisation.py

test-clients: CLIENTS := .venv-clients/bin/python
test-clients: .venv/.installed-dev ## test the servers with clients of other projects, in .venv-clients
	$(PYTHON) -m venv .venv-clients
	$(CLIENTS) -m tools.layer .venv
	$(CLIENTS) -m $(QUIET_PIP) -r tests/clients/requirements.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/clients

lint: .venv/.installed-dev ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed-demo ## write what docs/cli.md and docs/recipes.md take from the code
	$(BIN)/python -m pipo_cli.reference

clean: ## remove the environment, caches and build artefacts; outputs/ stays
	rm -rf .venv .venv-newest .venv-lowest .venv-sglang .venv-int8 .venv-clients build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pipo_core pipo_cli tests tools -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch by itself first, so that TORCH_INDEX serves torch and nothing else.
.venv/.installed-torch: constraints.txt | $(BIN)/python
	$(BIN)/python -m $(QUIET_PIP) -c constraints.txt $(TORCH_FROM) "$(TORCH)"
	@touch $@

.venv/.installed-demo: pyproject.toml constraints.txt .venv/.installed-torch
	$(BIN)/python -m $(QUIET_PIP) -c constraints.txt -e ".[all]"
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt .venv/.installed-torch
	$(BIN)/python -m $(QUIET_PIP) -c constraints.txt -e ".[dev]"
	$(BIN)/python -m $(QUIET_PIP) -c constraints.txt --no-deps -r tests/without-dependencies.txt
	@touch $@ .venv/.installed-demo
