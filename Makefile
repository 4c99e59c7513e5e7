# Needs Linux, Python 3.11 to 3.13, Java 17 or newer and Maven; all else is installed into .venv and a cache folder.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: setup test test-qdrant check demo bench chaos fuzz clean

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
UV := uv==0.13.9
# Not among them: train, which needs a feed; gpu, which needs a GPU; symptoms, which needs root; steady, which looks for
# leaks for 40 minutes; ablations and tasks, an hour each, whose figures say what settings of the trainer are worth and
# nothing of the machine.
BENCHMARKS := encode context_stage index hot_tier retrieval overload service pipeline freshness reindex operators poison

# Python packages into .venv; the broker's jars, an archive that makes its starts quick, and what a test needs to build a
# client in Java, into the cache folder.
# Nothing happens when all of it is there. Bytecode is compiled once here: six processes start at the same time, and
# where Python may not write it, each start would compile torch and transformers anew.
setup: .venv/installed
	@$(BIN)/python -m nearline.broker.class_archive
	@$(BIN)/python -m tests.kit.stranger.build

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; install one, or give PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --group dev --editable '.[server]'
	@touch $@

# Debian's Prometheus and Chromium, which only tests start, are got first where that is possible; else their tests are
# skipped, or fail where TEST_PROGRAMS_REQUIRED is 1.
test: setup
	@$(BIN)/python -m benchmarks.kit.programs
	$(BIN)/pytest -n 5 --durations=20

# The cold tier's tests on a Qdrant server: NEARLINE_TEST_QDRANT_URL=http://host:6333 make test-qdrant
test-qdrant: export NEARLINE_TEST_QDRANT_URL ?= http://127.0.0.1:6333
test-qdrant: export NEARLINE_TEST_QDRANT_GRPC_PORT ?= 6334
test-qdrant: setup
	$(BIN)/pytest tests/indexer -k qdrant

# Lint, format, types, and which folder imports which.
check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py

# The main job on a world of its own, or on a file of events: make demo EVENTS=events.jsonl.gz; PACKAGE=folder serves
# another model package than the demo's own.
demo: setup
	$(BIN)/python -m nearline.demo.run $(if $(EVENTS),--events "$(EVENTS)") $(if $(PACKAGE),--package "$(PACKAGE)")

# One after the other, so that none disturbs another. All of them, also where a bound does not hold; then it fails.
bench: setup
	@failed=; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "a bound does not hold, or it failed:$$failed" >&2; exit 1; }

# Kills, freezes and crashes of every part, and of operators' commands, while events come in; under an hour. FAULTS=1000 for who has a night.
chaos: setup
	$(BIN)/nearline chaos --faults $(or $(FAULTS),300) $(if $(JSON),--json "$(JSON)")

# New examples for every property test, and a million inputs to all that reads what others send; some minutes.
# INPUTS=10000 for a look.
fuzz: setup
	$(BIN)/pytest -n 4 -m hypothesis --hypothesis-profile=explore
	$(BIN)/python -m tests.fuzz.run --inputs $(or $(INPUTS),1000000) $(if $(JSON),--json "$(JSON)")

clean:
	rm -rf .venv .nearline dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
