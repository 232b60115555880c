# One command set for people and CI. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPARK := $(VENV)/.spark
ALL_CORES := -n auto --maxprocesses 8 --dist loadfile
FAST := $(BIN)/pytest -m "not integration" $(ALL_CORES)
# Those of the tables' layer start an S3 server each, and nothing else; all others are alone with their cluster.
STORES := $(BIN)/pytest -m integration tests/lakehouse $(ALL_CORES)
# Java's optimising compiler never earns back what it costs servers that live for minutes: a fifth of the CPU of all.
CLUSTERS := JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1 $(BIN)/pytest -m integration --ignore=tests/lakehouse

# Hundreds of programs begin in one test run: what they import is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test fast check format bench chaos lock clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## virtual environment from the hashed locks, jars by Maven
	@$(BIN)/python -m jobs.stack

$(STAMP): requirements/build.lock requirements/dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or set PYTHON=..."; exit 1; }
	@command -v java >/dev/null || { echo "java is missing: install Java 17"; exit 1; }
	@command -v mvn >/dev/null || { echo "mvn is missing: install Maven 3.8 or newer"; exit 1; }
	@echo "setting up $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/build.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --require-hashes -r requirements/dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(SPARK): $(STAMP) requirements/spark.lock # only tests need it: 460 MB
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --require-hashes -r requirements/spark.lock
	@touch $@

demo: setup ## the main job on real Kafka and Flink, with a sample of real change data
	@$(BIN)/tidegate demo

test: setup $(SPARK) ## all tests, those with real Kafka, Flink, S3 and Spark included
	@$(FAST); fast=$$?; $(STORES); stores=$$?; $(CLUSTERS) && exit $$((fast + stores))

fast: setup ## only the tests that need no services
	@$(FAST)

check: setup ## ruff, mypy strict, architecture tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/architecture

format: setup ## bring the code into the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## measure rates, ratios and memory; rewrites docs/benchmarks.md
	@$(BIN)/python -m tests.bench

chaos: setup ## the long exactly-once run under fire (SEED=n, MINUTES=n)
	@$(BIN)/python -m tests.chaos --seed $${SEED:-1} --minutes $${MINUTES:-20}

lock: ## resolve the dependencies again into the hashed locks (needs uv)
	@for f in build dev spark; do \
	  case $$f in build) what="requirements/build.in";; dev) what="--extra dev pyproject.toml";; \
	    spark) what="-c requirements/dev.lock requirements/spark.in";; esac; \
	  uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	    --python-version 3.11 $$what -o requirements/$$f.lock; done

clean: ## remove what the commands above have made
	@rm -rf $(VENV) .tidegate build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
