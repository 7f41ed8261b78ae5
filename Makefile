# Every target sets up first; ARGS and SUITE are passed on: make demo ARGS="--once --json", make e2e SUITE="spine crash".
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help setup demo test check e2e bench

help: ## This list
	@sed -nE 's/^([a-z0-9]+): .*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: ## Install what is missing: Debian packages, Node, npm packages
	@scripts/setup.sh

demo: setup ## Back up a simulated VM in full and incrementally, restore, compare (ARGS="--once --json")
	@bin/sendense demo $(ARGS)

test: setup ## Unit tests and every end-to-end suite
	@scripts/test.sh $(ARGS)

check: setup ## Types, lint, format and the rules of the structure
	@scripts/check.sh $(ARGS)

e2e: setup ## End-to-end suites: all, or SUITE="one two"
	@node scripts/e2e.ts $(SUITE) $(ARGS)

bench: setup ## Benchmarks (ARGS="full --json")
	@node bench/main.ts $(ARGS)
