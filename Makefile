.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
UV := $(BIN)/uv pip install -q
# A folder with wheels that pip was told to look into is used by uv too, if it exists.
LINKS := $(addprefix --find-links ,$(wildcard $(PIP_FIND_LINKS)))
BACKEND := $(addprefix --torch-backend ,$(TORCH_BACKEND))

# Every process of the loop imports some 5,400 modules: 17 s of CPU, 7 s if what was compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo pictures up down status deploy worker adopt explore test test-system test-long faults lint format lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: .venv/.done .venv-triton/.done ## Install everything into .venv and .venv-triton; TORCH_BACKEND=cpu saves 3 GB

demo: setup ## Watch the loop; DATA=sessions.jsonl.gz replays real sessions, KEEP=1 leaves the UIs up
	@$(BIN)/python -W ignore -m demo $(if $(DATA),--data "$(DATA)") $(if $(KEEP),--keep,)

pictures: setup ## Draw the pictures of README and docs anew, from a run of the demo; installs Debian's Chromium
	@command -v chromium >/dev/null || (apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends chromium)
	@$(BIN)/python -W ignore -m demo.pictures

up: setup ## Start (or repair) the local stack: Prefect, MLflow, Triton, gateway and a worker; state stays in .kreislauf, and what people changed in Prefect, unless RESET=1
	@$(BIN)/python -W ignore -m deployments.stack up $(if $(RESET),--reset)

down: ## Stop the local stack; its state stays
	@$(BIN)/python -W ignore -m deployments.stack down

status: ## Show what runs and where
	@$(BIN)/python -W ignore -m deployments.stack status

deploy: setup ## Put prefect.yaml in place on the Prefect server; what people changed there stays, unless RESET=1
	@$(BIN)/python -W ignore -m deployments.deploy $(if $(RESET),--reset)

worker: setup ## Start a worker here, for the Prefect server of PREFECT_API_URL; the environment says where the lake and the servers are
	@$(BIN)/python -W ignore -m deployments.worker

adopt: setup ## Make what a search found the deployments' parameters, in prefect.yaml; MODEL=... STUDY=...
	@$(BIN)/python -W ignore -m deployments.adopt $(MODEL) $(STUDY)

explore: setup ## Draw what is in the lake, what was rejected and why, what is suspicious
	@$(BIN)/python -W ignore -m notebooks.explore

test: lint ## Run all tests; needs nothing but Python and pip
	@$(BIN)/python -m pytest

test-system: setup ## Install Debian's Prometheus, Alertmanager and Chromium, and run what needs them
	@which promtool amtool chromium >/dev/null || (apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends prometheus prometheus-alertmanager chromium)
	@$(BIN)/python -m pytest -n 0 -m system

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
	env -u UV_FIND_LINKS -u PIP_FIND_LINKS $(BIN)/python -m deployments.lock $(LINKS)

.venv/.uv:
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q uv==0.13.9
	@touch $@

.venv/.done: .venv/.uv pyproject.toml constraints.txt
	@echo "installing Kreislauf into .venv"
	@$(UV) -p $(BIN)/python $(LINKS) $(BACKEND) -c constraints.txt -e '.[dev]'
	@$(BIN)/uv pip check -q -p $(BIN)/python
	@touch $@

.venv-triton/.done: .venv/.uv deployments/triton/constraints.txt
	@echo "installing Triton into .venv-triton"
	@$(BIN)/uv venv -q --allow-existing -p $(BIN)/python .venv-triton
	@$(UV) -p .venv-triton/bin/python -c deployments/triton/constraints.txt -r deployments/triton/requirements.in
	@touch $@
