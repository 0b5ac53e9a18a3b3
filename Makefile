# Everything a developer does here. `make` alone lists it. Needs Python 3.11+; all else is installed into .venv.

PYTHON ?= python3
RUN := .venv/bin/python
RELEASED := proto/released.binpb
LINTED := '{"version":"v2","lint":{"use":["STANDARD"]},"breaking":{"use":["FILE"]}}'
COMPILE := .cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--prerelease if-necessary-or-explicit --custom-compile-command "make lock" pyproject.toml
CHECKS := check-lint check-format check-types check-imports check-dependencies check-proto check-sql check-cluster

export PYTHONPATH := $(CURDIR):$(CURDIR)/proto

.DEFAULT_GOAL := help
.PHONY: help venv proto demo up down status logs restart token replay import test chaos bench check $(CHECKS) map lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: up ## start the shop, fill it, and play one customer's story through its public API
	@$(RUN) -m deploy.local.demo

test: proto ## all tests but the long ones; ARGS="tests/deploy -x" goes to pytest
	@$(RUN) -m pytest -m "not long" $(ARGS)

up: proto ## start every part and await it; changes nothing that runs already
	@$(RUN) -m deploy.local up

down: venv ## stop every part; what they stored stays
	@$(RUN) -m deploy.local down

status: venv ## what runs, since when, on which port, and what came back after it died
	@$(RUN) -m deploy.local status

logs: venv ## follow one part's log: make logs SERVICE=catalog
	@$(RUN) -m deploy.local logs $(or $(SERVICE),$(error which? make logs SERVICE=catalog))

restart: proto ## restart one part and await it: make restart SERVICE=catalog
	@$(RUN) -m deploy.local restart $(or $(SERVICE),$(error which? make restart SERVICE=catalog))

token: venv ## a token to call with: make token ROLE=customer CUSTOMER=<id> (or agent AGENT=, service SERVICE=, operator)
	@$(RUN) -m deploy.local token $(or $(ROLE),$(error which? make token ROLE=customer CUSTOMER=<id>)) \
		$(if $(CUSTOMER),--customer $(CUSTOMER)) $(if $(AGENT),--agent $(AGENT)) $(if $(SERVICE),--service $(SERVICE))

replay: proto ## hand a topic's dead letters back, in order: make replay SERVICE=catalog TOPIC=shop.inventory.stock.v1
	@$(RUN) -m deploy.local run $(or $(SERVICE),$(error whose? make replay SERVICE=catalog TOPIC=…)) \
		replay $(or $(TOPIC),$(error which? make replay SERVICE=catalog TOPIC=…))

import: proto ## hand the shop another file: make import SERVICE=catalog FILE=products.tsv [LOCALE=de] (or inventory)
	@$(RUN) -m deploy.local import $(if $(LOCALE),--locale $(LOCALE)) $(or $(SERVICE),$(error whose? make import SERVICE=catalog FILE=products.tsv)) \
		"$(or $(FILE),$(error which? make import SERVICE=$(SERVICE) FILE=<file>))"

check: proto ## every static check; says at the end which failed
	@failed=; for each in $(CHECKS); do \
		echo "== $$each"; $(MAKE) --no-print-directory $$each || failed="$$failed $$each"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

bench: proto ## measure the shop against bare rulers, as ratios
	@$(RUN) -m tests.bench $(ARGS)

chaos: proto ## kill, freeze and cut off parts while orders flow, then audit (minutes)
	@$(RUN) -m pytest -m long $(ARGS)

map: proto ## print who calls whom and who hears what into the README
	@$(RUN) -m deploy.map

proto: venv ## generate code and the descriptor set from the protos, if they changed
	@$(RUN) proto/generate.py

lock: venv ## resolve all dependencies again, with hashes: packages and jars
	@test -x .cache/lock/bin/uv || { $(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install --quiet uv; }
	@$(COMPILE) -o requirements.lock
	@$(COMPILE) --group dev -c requirements.lock -o requirements-dev.lock
	@$(RUN) -m deploy.local.jars

clean: ## stop everything and leave nothing behind: data, generated code, caches, .venv
	@if test -d .local && test -x $(RUN); then $(RUN) -m deploy.local down; fi
	@find proto services deploy tests -name __pycache__ -prune -exec rm -rf {} +
	@find proto -name '*_pb2*.py' -delete -o -name '*_pb2*.pyi' -delete
	@rm -rf proto/buf proto/.generated proto/.validate.binpb proto/shop.binpb
	@rm -rf .local .cache .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

venv: # the locked packages, installed when the lock changed
	@$(PYTHON) -I deploy/local/install.py

check-lint: venv
	@$(RUN) -m ruff check .

check-format: venv
	@$(RUN) -m ruff format --check .

check-types: proto
	@$(RUN) -m mypy

check-imports: venv
	@.venv/bin/lint-imports

check-dependencies: venv
	@.venv/bin/deptry . --extend-exclude '^(deploy|tests|proto)/' --known-first-party shop --known-first-party buf

check-proto: proto
	@.venv/bin/buf lint proto/shop.binpb --path shop --config $(LINTED)
	@.venv/bin/buf breaking proto/shop.binpb --against $(RELEASED) --path shop --config $(LINTED)

check-sql: venv
	@.venv/bin/squawk $(wildcard services/*/sql/*.sql)

check-cluster: venv
	@$(RUN) -m deploy.cluster.check
