# Every target does its own set-up: `make demo` and `make test` work in a fresh clone with nothing installed but
# Python 3.11 or newer (or uv). VENV=, PYTHON= and ARGS= can be set: make test VENV=/somewhere ARGS="-k packed".
VENV ?= .venv
PYTHON ?=
ARGS ?=

# The stamp's name holds a checksum of what was asked for, so a changed dependency installs again.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
BIN := $(abspath $(VENV))/bin

# The environment's own ninja for compiled operators, kept apart from other environments' builds.
export PATH := $(BIN):$(PATH)
export TORCH_EXTENSIONS_DIR ?= $(abspath $(VENV))/torch_extensions

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck format bench soak docs checks ci clean distclean

help: ## this list
	@echo "usage: make TARGET [ARGS=...]   (the first one installs everything: about 7 GB, 6 minutes)"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP) ## make the environment only

$(STAMP): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" sh scripts/install.sh "$(VENV)" "$(STAMP)"

demo: $(STAMP) ## train, evaluate and save a small generalist on seven or more tasks: runs/demo/
	$(BIN)/generalist train demo --overwrite $(ARGS)

test: $(STAMP) ## the tests (ARGS="-k word" picks some)
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(STAMP) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m scripts.types

# between them they call every tokenizer, mixer, task and the model
TYPECHECKED := tests/test_modalities.py tests/test_golden.py tests/test_at.py

typecheck: $(STAMP) ## every annotation (kinds and sizes of tensors, all types) checked while a part of the tests runs
	GENERALIST_TYPECHECK=1 $(BIN)/python -m pytest -n 2 $(TYPECHECKED) $(ARGS)

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure speed
	$(BIN)/python -m scripts.bench $(ARGS)

soak: $(STAMP) ## the long tests
	$(BIN)/python -m pytest -m soak --timeout 0 $(ARGS)

docs: $(STAMP) ## the site with all pages and the reference, and the tutorials as notebooks: build/docs/
	$(BIN)/python -m scripts.docs --notebooks $(ARGS)

checks: lint typecheck test ## what must pass before a change is kept

ci: ## what continuous integration runs: a clean environment, checks, a short training
	.ci/run

clean: ## remove caches and builds (keeps the environment and runs/)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf "$(VENV)"
