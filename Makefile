# Every habit of this repository, one target each. `make help` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo up test test-all test-gpu-image engines check lint types imports format bench peers images locks clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Bedplate needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) (about 1.7 GB with torch, some minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable '.[server,cpu,otel,dev]'
	@touch $@

install: $(STAMP) ## .venv with everything in it

demo: $(STAMP) ## the whole loop on MovieLens-1M, and its table; KEEP=1 leaves it running, SEEDS=1 is quicker, DATASET=synthetic|DIR
	@$(BIN)/bedplate demo --dataset $(or $(DATASET),movielens-1m) $(if $(KEEP),--keep) $(if $(SEEDS),--seeds $(SEEDS))

up: $(STAMP) ## the platform on this machine, until Ctrl-C
	@$(BIN)/bedplate up

test: $(STAMP) ## all tests, on every engine that is here (make engines)
	$(BIN)/python -m pytest

test-all: $(STAMP) ## all tests, and none may be skipped; ENGINES=postgresql,s3: unless for want of another engine or tool; TESTS=tests/unit: only these
	BEDPLATE_REQUIRE_SERVERS=$(or $(ENGINES),all) $(BIN)/python -m pytest $(TESTS)

test-gpu-image: $(STAMP) ## install what the image worker-gpu holds (downloads 3.7 GB, takes 8 GB for a while) and run a platform of it
	BEDPLATE_TEST_GPU_IMAGE=1 $(BIN)/python -m pytest tests/images/test_install_models.py -k gpu

engines: $(STAMP) ## which servers and tools the tests find here, and what installs the others
	@$(BIN)/python -m tests.engines

check: lint types imports ## lint, types and import contracts

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## the floors of the house
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## the benchmarks: each figure as a ratio to the physical limit measured in the same run
	$(BIN)/python -m benchmarks

peers: $(STAMP) ## the same work on Redis, PostgreSQL, Chroma, Qdrant's engine, LanceDB and Feast; downloads some 2 GB
	$(BIN)/python -m benchmarks.peers

images: ## build the four container images (docs/images.md); TARGETS="api inference", ENGINE=podman, BUILD_OPTIONS="--secret ..."
	@set -e; for target in $(or $(TARGETS),api inference worker-cpu worker-gpu); do \
	    $(or $(ENGINE),docker) build --target $$target \
	        --label org.opencontainers.image.revision=$$(git rev-parse HEAD) \
	        --label org.opencontainers.image.created=$$(date -u +%Y-%m-%dT%H:%M:%SZ) \
	        --tag bedplate-$$target:$(VERSION) $(BUILD_OPTIONS) .; done

locks: $(STAMP) ## deploy/locks: what the images hold, by hash; TORCH_WHEELS=DIR has PyTorch's CPU build, UPGRADE=1 the newest
	$(BIN)/python deploy/lock.py $(if $(TORCH_WHEELS),--torch-wheels $(TORCH_WHEELS)) $(if $(UPGRADE),--upgrade)

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
