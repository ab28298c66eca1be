# Everything a contributor does, from a bare machine with Python 3.11 or newer and make.
# What was installed once is not installed again until pyproject.toml or constraints.txt changes,
# and from then on nothing here but `make image` and `make constraints` needs a network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The embedded upstream serves a first run; whoever gives a key, a provider or a config gets that.
RUN_ENV ?= development
ifeq ($(INFERENCE_INFERENCE_API_KEY)$(INFERENCE_INFERENCE_API_KEY_FILE)$(INFERENCE_INFERENCE_PROVIDER)$(wildcard config/$(RUN_ENV).yaml),)
run: export INFERENCE_INFERENCE_PROVIDER = echo
endif
run: export RUN_ENV := $(RUN_ENV)
run: export INFERENCE_LOGGING_FORMAT ?= text

IMAGE ?= inference-sidecar:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/inference_config/__init__.py)
OPERATOR_IMAGE ?= inference-operator:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/inference_config/__init__.py)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The build backend is pinned with all the rest; without isolation pip takes that one, and a second
# install needs no network.
INSTALL := $(PIP) install --constraint constraints.txt
EDITABLE := $(INSTALL) --no-build-isolation --editable

.DEFAULT_GOAL := help
.PHONY: help run test transports compiled bench bench-operator bench-transport bench-memory check machine image operator-image cluster cluster-env cluster-down cluster-programs dashboards pictures manifests constraints clean

help: ## Print this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed ## Serve the OpenAI API on http://127.0.0.1:3000/v1 (ARGS="--port 3100" for flags).
	@exec $(BIN)/inference-sidecar run $(ARGS)

test: $(VENV)/installed-dev ## Run every test that this machine can run (ARGS="-k name" for some).
	@$(BIN)/python -m pytest $(ARGS)

SEEN := $(addprefix tests/sidecar/test_,$(addsuffix .py,faults odd_answers sdk streams stream_ends disconnect retries tls passthrough ledger))
transports: $(VENV)/installed-dev ## Run the sidecar's tests that can tell transports apart, with httpcore's in place of our own.
	@$(BIN)/python -m pytest --transport=httpcore $(SEEN) $(ARGS)

COMPILED := $(CURDIR)/.cache/compiled
compiled: $(VENV)/installed-dev ## Run the sidecar's tests on what the image has: the path compiled (GCC, Python's headers).
	@PATH="$(CURDIR)/$(BIN):$$PATH" deploy/image/compile sidecar $(COMPILED) $(BIN)/python
	@PYTHONPATH=$(COMPILED) $(BIN)/python -m pytest --compiled tests/sidecar $(ARGS)

bench: $(VENV)/installed-dev ## Measure the data path beside other proxies, 15 minutes (see docs/performance.md).
	@PYTHONPATH=bench $(BIN)/python -m data_path $(ARGS)

bench-operator: $(VENV)/installed-dev ## Measure the operator at scale; bench/README.md says what it needs.
	@PYTHONPATH=tests $(BIN)/python bench/operator_scale.py $(ARGS)

bench-transport: $(VENV)/installed-dev ## Measure our own HTTP transport beside httpcore's.
	@$(BIN)/python bench/transport.py --write

bench-memory: $(VENV)/installed-dev ## Tell what memory and start are made of, import by import.
	@$(BIN)/python bench/memory.py --write $(ARGS)

check: $(VENV)/installed-dev ## Lint, format, types, layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

machine: ## Install the Debian packages that the tests marked `machine` and `cluster` need (root).
	@.ci/machine-packages

image: ## Build the sidecar's image (BASE_IMAGE=, BUILDER=, IMAGE=; see docs/images.md).
	@deploy/image/build Dockerfile.sidecar $(IMAGE)

operator-image: ## Build the image of operator and injector (OPERATOR_IMAGE=, and as above).
	@deploy/image/build Dockerfile.operator $(OPERATOR_IMAGE)

CLUSTER := PYTHONPATH=tests $(BIN)/python -m cluster

cluster: $(VENV)/installed-dev ## Start a real Kubernetes with the chart for a look by hand (root), or bring the one that is up to this tree.
	@$(CLUSTER) up

cluster-env: $(VENV)/installed-dev ## Print what a shell has to evaluate to use that cluster.
	@$(CLUSTER) env

cluster-down: $(VENV)/installed-dev ## Remove that cluster, and whatever killed test runs left.
	@$(CLUSTER) down

cluster-programs: $(VENV)/installed-dev ## Build what a cluster and the tests of telemetry are made of, once for each version.
	@$(CLUSTER) build

dashboards: $(VENV)/installed-dev ## Write the dashboards and the alert rules, and the chart's copies of them.
	@$(BIN)/python deploy/grafana/generate.py

pictures: $(VENV)/installed-dev ## Draw the dashboards from a run of the real parts, into docs/images (minutes).
	@PYTHONPATH=tests $(BIN)/python -m telemetry.pictures $(ARGS)

HELM ?= $(firstword $(wildcard .cache/cluster/bin/helm-*/helm) helm)
manifests: $(VENV)/installed-dev dashboards ## Write what follows from the chart and the CRD: its README and schema, plain manifests (HELM=).
	@$(BIN)/python helm/generate.py --helm $(HELM)

constraints: ## Write constraints.txt anew with the newest versions that pyproject.toml allows.
	@.ci/constraints $(PYTHON)

clean: ## Remove what the targets above made, caches of base images included.
	rm -rf $(VENV) .cache dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo 'Python 3.11 or newer is needed and "$(PYTHON)" is none; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing into $(VENV) ...'
	@$(INSTALL) hatchling editables
	@$(EDITABLE) .
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing into $(VENV), with what development needs ...'
	@$(INSTALL) hatchling editables
	@$(EDITABLE) '.[operator,dev]'
	@touch $(VENV)/installed $@
