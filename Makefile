# What can be made here. `make` alone lists it.
SHELL := bash
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
BIN := $(dir $(shell command -v $(PYTHON)))
# The API that must not be broken.
AGAINST ?= main

.DEFAULT_GOAL := help
.PHONY: help gen gen-check lint lint-proto breaking

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

gen: ## make generated/ from proto/
	$(PYTHON) proto/gen.py
	$(MAKE) --no-print-directory lint-proto

gen-check: ## fail if generated/ is not what proto/ makes
	$(PYTHON) proto/gen.py --check

lint: lint-proto ## look for faults without running anything
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)lint-imports

lint-proto: ## look for faults in the protos
	$(BIN)buf lint

breaking: ## fail if the API breaks what AGAINST (a branch, main) promised
	$(BIN)buf breaking --against '.git#branch=$(AGAINST)'
