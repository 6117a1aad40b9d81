.DEFAULT_GOAL := help
# The Python that .venv was made with, or else what python3 is.
PYTHON ?= $(or $(wildcard .venv/bin/python),python3)
BIN := .venv/bin
# uv, with pip's configuration.
INSTALL := $(BIN)/python -m deployments.installer pip install -q
BACKEND := $(addprefix --torch-backend ,$(TORCH_BACKEND))

# Every process of the loop imports some 5,400 modules: 17 s of CPU, 7 s if what was compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo pictures up down status deploy worker adopt inspect explore test test-pythons test-slow test-system test-long faults lint format lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: ## Install everything into .venv and .venv-triton; PYTHON=python3.12 chooses a Python, TORCH_BACKEND=cpu saves 3 GB
	@$(PYTHON) -c '' 2>/dev/null || { echo "Kreislauf cannot be installed: $(PYTHON) does not run;" \
		'install Python 3.11 or 3.12, and choose it with `make setup PYTHON=...`.' >&2; exit 1; }
	@$(PYTHON) -m deployments.interpreter
	@$(MAKE) -s .venv/.done .venv-triton/.done

demo: setup ## Watch the loop; MODELS=all adds search results and support answers, DATA=events.csv MAPPING=shop.yaml replays real events, KEEP=1 leaves the UIs up
	@$(BIN)/python -W ignore -m demo $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)") $(if $(MODELS),--models "$(MODELS)") $(if $(KEEP),--keep,)

pictures: setup ## Draw the pictures of README and docs anew, from a run of the demo; installs Debian's Chromium
	@command -v chromium >/dev/null || (apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends chromium)
	@$(BIN)/python -W ignore -m demo.pictures

up: setup ## Start (or repair) the local stack: Prefect, MLflow, Triton, gateway and a worker; state stays in .kreislauf, and what people changed in Prefect, unless RESET=1; DATA=events.csv MAPPING=shop.yaml makes a first model of them
	@$(BIN)/python -W ignore -m deployments.stack up $(if $(RESET),--reset) $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)")

down: ## Stop the local stack; its state stays
	@$(BIN)/python -W ignore -m deployments.stack down

status: ## Show what runs and where, and the newest event of each source
	@$(BIN)/python -W ignore -m deployments.stack status

deploy: setup ## Put prefect.yaml in place on the Prefect server; what people changed there stays, unless RESET=1
	@$(BIN)/python -W ignore -m deployments.deploy $(if $(RESET),--reset)

worker: setup ## Start a worker here, for the Prefect server of PREFECT_API_URL; the environment says where the lake and the servers are
	@$(BIN)/python -W ignore -m deployments.worker

adopt: setup ## Make what a search found the deployments' parameters, in prefect.yaml; MODEL=... STUDY=...
	@$(BIN)/python -W ignore -m deployments.adopt $(MODEL) $(STUDY)

inspect: setup ## Look at data of any shape, and propose a mapping; DATA=events.csv, a folder or s3://..., OUT=shop.yaml; or try MAPPING=shop.yaml
	@$(BIN)/python -W ignore -m kreislauf.inspection "$(DATA)" $(if $(OUT),--out "$(OUT)") $(if $(MAPPING),--mapping "$(MAPPING)")

explore: setup ## Draw what is in the lake, what was rejected and why, what is suspicious
	@$(BIN)/python -W ignore -m notebooks.explore

test: lint ## Check style and types, and run the tests that are not slow: ten minutes on two cores; needs nothing but Python and pip
	@$(BIN)/python -m pytest

test-pythons: setup ## Run the quick tests on the other Pythons that are installed, and look for the wheels of those that are not
	@$(BIN)/python -m deployments.pythons

test-slow: setup ## Run the slow tests: whole stacks, kills, races; twelve minutes on two cores
	@$(BIN)/python -m pytest -m 'slow and not long and not system'

test-system: test-slow ## Run the slow tests; then install Debian's Prometheus, Alertmanager and Chromium, and run what needs them
	@which promtool amtool chromium >/dev/null || (apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends prometheus prometheus-alertmanager chromium)
	@$(BIN)/python -m pytest -m system --ignore tests/system/test_demo.py
# The demo is judged by answers in time: nothing else runs beside it.
	@$(BIN)/python -m pytest -n 0 -m system tests/system/test_demo.py

test-long: setup ## Run the kill and race loops, about half an hour
	@$(BIN)/python -m pytest -m long

faults: setup ## Break the loop in the middle of 60 retrainings, and see whether it closes again, some hours; RUNS=12 SEED=22 POINTS="server worker"
	@$(BIN)/python -W ignore -m benchmarks.faults $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(if $(POINTS),--points $(POINTS))

lint: setup ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy flows tasks kreislauf models serving deployments demo benchmarks notebooks

format: setup ## Put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: .venv/.uv ## Resolve the dependencies anew
	@env -u UV_FIND_LINKS $(BIN)/python -m deployments.lock

.venv/.uv:
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q uv==0.13.9
	@touch $@

.venv/.done: .venv/.uv pyproject.toml constraints.txt
	@echo "installing Kreislauf into .venv"
	@$(INSTALL) -p $(BIN)/python $(BACKEND) -c constraints.txt -e '.[dev]'
	@$(BIN)/uv pip check -q -p $(BIN)/python
	@touch $@

.venv-triton/.done: .venv/.uv deployments/triton/constraints.txt
	@echo "installing Triton into .venv-triton"
	@$(BIN)/uv venv -q --allow-existing -p $(BIN)/python .venv-triton
	@$(INSTALL) -p .venv-triton/bin/python -c deployments/triton/constraints.txt -r deployments/triton/requirements.in
	@touch $@
