# The one door to the project: `make help` says what it opens. Each target does its own set-up, and only once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # the targets share environments and a RabbitMQ node
.SECONDARY: # a stamp made on the way to another is kept

# The Python of .venv, 3.11 or later. Others are looked for only while nobody names one.
PYTHON ?= python3
PYTHONS = $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)
# The Pythons that run the suite besides that of .venv: the ends of the supported range, where the machine has them.
TEST_PYTHONS ?= $(shell requirements/environment.sh others)
# Where pipelines as published are tested on this library; nowhere on a machine without the one Python that they run on.
CLIENTS = $(shell requirements/environment.sh find 3.13 >/dev/null 2>&1 && echo .venv-clients)
# The Debian suites whose RabbitMQ is tested beside the system's own; sid changes, so that it is for `make soak` alone.
RABBITMQ_SUITES ?= trixie
SOAK_RABBITMQ_SUITES ?= $(RABBITMQ_SUITES) sid
PYTEST_ARGS ?=
LOCK_ARGS ?=
BENCH_ARGS ?=

# A shell may hold the settings of a real bus, a collector or another project: what is made here is the same everywhere.
# Without the files of bytecode each process of the suite would compile its imports again.
unexport $(filter PYTHONDONTWRITEBYTECODE BUILD_VERSION MESH_CONFIG RETRY_CONFIG EVENT_FLUSH_TIMEOUT PYTHONHOME PYTHONPATH \
    TRACEPARENT TRACESTATE BAGGAGE DKIST_CORE_% ISB_% OTEL_%,$(.VARIABLES))

DEMO = DKIST_CORE_STATE_DIR="$$PWD/build/demo-state" PYTHONPATH="$$PWD/examples" .venv/bin/dkist-core

.PHONY: help demo quick test coverage soak lint docs events house drawings bench clean lock FORCE
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv/.stamp-demo ## Run the example workflow on the embedded journal and draw its timeline
	@mkdir -p build/demo-state
	$(DEMO) run solar_calibration:workflow --recipe-run-id 1
	$(DEMO) timeline
	@printf '\n%s\n%s\n' \
	    "On your RabbitMQ: put MESH_CONFIG='{\"interservice-bus\": {\"mesh_address\": \"127.0.0.1\", \"mesh_port\": 5672}}' ISB_USERNAME=guest ISB_PASSWORD=guest before the same commands." \
	    "To see the spans: put OTEL_TRACES_EXPORTER=console before them, or OTEL_EXPORTER_OTLP_ENDPOINT=… with your collector's address."

quick: .venv/.stamp-test ## Run the tests that need no service and start no process, in under a minute on two processors
	@tests/quick.sh .venv/bin/python $(PYTEST_ARGS)

test: .venv/.stamp-test ## Run the whole suite, on each end of the supported Pythons that is here (PYTEST_ARGS=… narrows it)
	@tests/services/install_packages.sh
	@printf '%s\n' $(CLIENTS:%=%/.stamp-clients) .venv-airflow/.stamp-airflow $(TEST_PYTHONS:%=.venv-%/.stamp-test) | \
	    xargs -P 2 -n 1 $(MAKE)
	@suites=$$(tests/services/fetch_rabbitmq.sh $(RABBITMQ_SUITES)) && RABBITMQ_SUITES=$$suites CLIENTS='$(CLIENTS)' \
	    tests/on_each_python.sh '.venv $(TEST_PYTHONS:%=.venv-%)' $(PYTEST_ARGS)

coverage: .venv/.stamp-test .venv-airflow/.stamp-airflow ## Run the suite on the Python of .venv, and show what it covers
	@COVERAGE=1 $(MAKE) test TEST_PYTHONS=

soak: .venv/.stamp-test .venv-airflow/.stamp-airflow ## Run the tests that need minutes: load, faults, leaks, newer brokers
	@tests/services/install_packages.sh
	DKIST_CORE_SOAK=1 .venv/bin/python -m pytest -m soak $(PYTEST_ARGS)
	@suites=$$(tests/services/fetch_rabbitmq.sh $(SOAK_RABBITMQ_SUITES)); for suite in $$suites; do \
	    RABBITMQ_SUITE=$$suite .venv/bin/python -m pytest -m 'rabbitmq and not soak and not airflow and not clients' \
	    $(PYTEST_ARGS); done

lint: .venv/.stamp-dev ## Check style, format and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: .venv/.stamp-dev ## Build the documentation into build/docs
	@test -e mkdocs.yml || { echo 'There is no mkdocs.yml yet: nothing was built.' >&2; exit 1; }
	.venv/bin/mkdocs build --strict --site-dir build/docs

events: .venv/.stamp-dev ## Write the schemas and the reference page of the events anew, from their classes
	.venv/bin/python -m dkist_processing_core.events.schema telemetry/schemas
	.venv/bin/python -m dkist_processing_core.events.page docs/reference/events.md

house: .venv/.stamp-test ## Count how the library is laid out
	@.venv/bin/python -m tests.house

drawings: .venv/.stamp-uv ## Draw docs/drawings anew (needs Debian's graphviz)
	.venv/bin/python docs/drawings/render.py

bench: .venv/.stamp-test .venv-peers/.stamp-peers .venv-airflow/.stamp-airflow ## Measure the library beside its peers (BENCH_ARGS='rates --rounds 2' narrows it)
	@tests/services/install_packages.sh
	@for environment in $(CLIENTS); do $(MAKE) $$environment/.stamp-clients; done
	.venv/bin/python -m benchmarks.run $(BENCH_ARGS)

clean: ## Remove what the targets leave behind, but for the environments (.venv*)
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -exec rm -rf {} +

# dev.txt holds everything, the others are parts of it, so that any of them may be installed over any other. Three are no
# parts of it and have environments of their own: peers.txt, since talus allows only old versions of what the library uses
# too, airflow.txt, lest Airflow's limits hold back what the library is developed with, and clients.txt, which is what the
# pipelines of release 7.5.0 were published with, for the one Python that they run on.
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)
lock: .venv/.stamp-uv ## Lock the dependencies of pyproject.toml anew (LOCK_ARGS=--upgrade for newer ones)
	$(COMPILE) --output-file requirements/dev.txt pyproject.toml --group lint --extra docs --extra test --extra examples --extra notebook
	$(COMPILE) --output-file requirements/test.txt -c requirements/dev.txt pyproject.toml --extra test --extra examples --extra notebook
	$(COMPILE) --output-file requirements/demo.txt -c requirements/dev.txt pyproject.toml --extra examples
	$(COMPILE) --output-file requirements/uv.txt -c requirements/dev.txt requirements/uv.in
	$(COMPILE) --output-file requirements/peers.txt requirements/peers.in
	$(COMPILE) --output-file requirements/airflow.txt pyproject.toml --extra airflow requirements/airflow.in
	$(filter-out --universal --fork-strategy fewest --python-version 3.11,$(COMPILE)) --python-version 3.13 --python-platform linux \
	    --output-file requirements/clients.txt -c requirements/clients-frozen.txt requirements/clients.in

# uv compiles bytecode whatever PYTHONDONTWRITEBYTECODE says: without it each process would compile its imports again.
define install
@echo 'Installing $< into $*.'
@$*/bin/uv pip install --quiet --python $* --require-hashes --no-build --compile-bytecode --requirement $<
@$*/bin/uv pip install --quiet --python $* --no-deps --no-build-isolation --editable .
@touch $@
endef

%/.stamp-demo: requirements/demo.txt pyproject.toml %/.stamp-uv
	$(install)

%/.stamp-test: requirements/test.txt pyproject.toml %/.stamp-uv
	$(install)

%/.stamp-dev: requirements/dev.txt pyproject.toml %/.stamp-uv
	$(install)

# Of the peers' environment nothing is the library's but the interpreter: what is compared runs on the same Python.
.venv-peers/.stamp-peers: requirements/peers.txt .venv-peers/.stamp-uv
	@echo 'Installing $< into .venv-peers.'
	@.venv-peers/bin/uv pip install --quiet --python .venv-peers --require-hashes --no-build --compile-bytecode --requirement $<
	@touch $@

.venv-peers/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create .venv-peers .venv/bin/python

%/.stamp-airflow: requirements/airflow.txt pyproject.toml %/.stamp-uv
	$(install)

# The replaced release with a client of it, as published; and the same with this library put in its place. One package
# has no wheel, and is built.
.venv-replaced/.stamp-clients: requirements/clients.txt .venv-replaced/.stamp-uv
	@echo 'Installing $< into .venv-replaced.'
	@.venv-replaced/bin/uv pip install --quiet --python .venv-replaced --require-hashes \
	    --only-binary :all: --no-binary pims --compile-bytecode --requirement $<
	@touch $@

.venv-clients/.stamp-clients: .venv-replaced/.stamp-clients pyproject.toml .venv-clients/.stamp-uv
	@echo 'Installing the library in place of the replaced release into .venv-clients.'
	@.venv-clients/bin/uv pip install --quiet --python .venv-clients --require-hashes \
	    --only-binary :all: --no-binary pims --compile-bytecode --requirement requirements/clients.txt
	@.venv-clients/bin/uv pip install --quiet --python .venv-clients --no-deps --no-build-isolation --editable .
	@touch $@

.venv-replaced/.stamp-uv .venv-clients/.stamp-uv: %/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create $* "$$(requirements/environment.sh find 3.13)"

# The newest Python that Airflow may meet, whatever runs the tests: `create` takes the first one named.
.venv-airflow/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create .venv-airflow \
	    $$(for version in 3.13 3.12 3.11; do requirements/environment.sh find $$version 2>/dev/null || true; done) \
	    .venv/bin/python

.venv/.stamp-uv: requirements/uv.txt
	@requirements/environment.sh create .venv $(PYTHONS)

.venv-%/.stamp-uv: requirements/uv.txt
	@python=$$(requirements/environment.sh find $*); requirements/environment.sh create .venv-$* "$$python"

# A stamp that names another place: the environment was moved or copied here, and its scripts still run the old one.
$(shell grep -LxsF '$(CURDIR)' .venv*/.stamp-uv): FORCE
