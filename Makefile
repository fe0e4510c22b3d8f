# make demo: install into .venv, then train, merge, compare and report in the tiny world.
# make test: install what the tests need, lint, type check, test.

PYTHON ?= python3.11
# On a machine without a GPU, PyTorch's own index has a smaller build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_FROM := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test lint docs clean

help: ## say what the targets do
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

demo: .venv/.installed-demo ## install, then run the demo: about a quarter of an hour on two cores
	$(BIN)/pipo run recipes/demo.yaml

# One thread a process, for there are as many processes as cores.
test: lint ## install, lint, type check, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

lint: .venv/.installed-dev ## ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.installed-demo ## write what docs/cli.md and docs/recipes.md take from the code
	$(BIN)/python -m pipo_cli.reference

clean: ## remove the environment, caches and build artefacts; outputs/ stays
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pipo_core pipo_cli tests -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch by itself first, so that TORCH_INDEX serves torch and nothing else.
.venv/.installed-torch: constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt $(TORCH_FROM) "$(TORCH)"
	@touch $@

.venv/.installed-demo: pyproject.toml constraints.txt .venv/.installed-torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt .venv/.installed-torch
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	@touch $@ .venv/.installed-demo
