# The commands of the project: `make help` lists them. Each target does its set-up, and only once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # the targets share environments and a RabbitMQ node
.SECONDARY: # keep intermediate stamps

# The Python of .venv, 3.11 or later. Other names are tried only if PYTHON is not set.
PYTHON ?= python3
PYTHONS = $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)
# The Pythons that run the suite in addition to that of .venv: the oldest and the newest supported one, if the machine
# has them.
TEST_PYTHONS ?= $(shell requirements/environment.sh others)
# The environment in which published pipelines are tested on this library. Empty without the one Python that they
# support.
CLIENTS = $(shell requirements/environment.sh find 3.13 >/dev/null 2>&1 && echo .venv-clients)
# The Debian suites whose RabbitMQ is tested in addition to the system's. sid changes, so only `make soak` uses it.
RABBITMQ_SUITES ?= trixie
SOAK_RABBITMQ_SUITES ?= $(RABBITMQ_SUITES) sid
PYTEST_ARGS ?=
LOCK_ARGS ?=
BENCH_ARGS ?=

# A shell may have the settings of a real bus, a collector or another project. The targets must not depend on them.
# Without bytecode files, each process of the suite would compile its imports again.
unexport $(filter PYTHONDONTWRITEBYTECODE BUILD_VERSION MESH_CONFIG RETRY_CONFIG EVENT_FLUSH_TIMEOUT PYTHONHOME PYTHONPATH \
    TRACEPARENT TRACESTATE BAGGAGE DKIST_CORE_% ISB_% OTEL_%,$(.VARIABLES))

DEMO = DKIST_CORE_STATE_DIR="$$PWD/build/demo-state" PYTHONPATH="$$PWD/examples" .venv/bin/dkist-core

.PHONY: help demo quick test coverage soak lint docs events house drawings pictures bench clean lock FORCE
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

# With `set -m`, Ctrl-C reaches the dashboard alone, which then ends in good order, and make goes on.
demo: .venv/.stamp-demo ## Run the example workflow twice, draw its timeline and, in a terminal, show it in a browser
	@mkdir -p build/demo-state
	$(DEMO) run solar_calibration:workflow --recipe-run-id 1
	$(DEMO) timeline
	@printf '\n%s\n' 'Once more, with a task that is tried again and one that fails:'
	SOLAR_CALIBRATION_FAIL=EstimateFlat:once,AlignFrames $(DEMO) run solar_calibration:workflow --recipe-run-id 2 || test $$? = 1
	@printf '\n%s\n%s\n' \
	    "On your RabbitMQ: put MESH_CONFIG='{\"interservice-bus\": {\"mesh_address\": \"127.0.0.1\", \"mesh_port\": 5672}}' ISB_USERNAME=guest ISB_PASSWORD=guest before the same commands." \
	    "To see the spans: put OTEL_TRACES_EXPORTER=console before them, or OTEL_EXPORTER_OTLP_ENDPOINT=… with your collector's address."
	@if [ -t 0 ] && [ -t 1 ]; then \
	    port=8088; ! (exec 3<>/dev/tcp/127.0.0.1/$$port) 2>/dev/null || port=0; \
	    echo; set -m; $(DEMO) dashboard --port $$port; \
	else \
	    echo 'To see both runs in a browser: $(DEMO) dashboard'; \
	fi

quick: .venv/.stamp-test ## Run the tests that need no service and start no process, in under a minute on two processors
	@tests/quick.sh .venv/bin/python $(PYTEST_ARGS)

test: .venv/.stamp-test ## Run the suite on the oldest and the newest supported Python found here (PYTEST_ARGS=… selects tests)
	@RABBITMQ_SUITES='$(RABBITMQ_SUITES)' CLIENTS='$(CLIENTS)' \
	    tests/on_each_python.sh '.venv $(TEST_PYTHONS:%=.venv-%)' $(PYTEST_ARGS)

coverage: .venv/.stamp-test ## Run the suite on the Python of .venv, and show the coverage
	@COVERAGE=1 $(MAKE) test TEST_PYTHONS=

soak: .venv/.stamp-test ## Run the tests that need minutes: load, faults, leaks, newer brokers (PYTEST_ARGS=… selects tests)
	@tests/soak.sh .venv/bin/python '$(SOAK_RABBITMQ_SUITES)' $(PYTEST_ARGS)

lint: .venv/.stamp-dev ## Check style, format and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: .venv/.stamp-dev ## Build the documentation into build/docs
	@test -e mkdocs.yml || { echo 'There is no mkdocs.yml: nothing was built.' >&2; exit 1; }
	.venv/bin/mkdocs build --strict --site-dir build/docs

events: .venv/.stamp-dev ## Write the schemas, the AsyncAPI document and their pages from the classes of the events
	.venv/bin/python -m dkist_processing_core.events.schema telemetry/schemas
	.venv/bin/python -m dkist_processing_core.events.page docs/reference/events.md
	.venv/bin/python -m dkist_processing_core.bus.asyncapi.document telemetry/asyncapi.json
	.venv/bin/python -m dkist_processing_core.bus.asyncapi.page docs/reference/bus.md

house: .venv/.stamp-test ## Count the modules, imports and calls of the library
	@.venv/bin/python -m tests.house

drawings: .venv/.stamp-uv ## Render docs/drawings (needs Debian's graphviz)
	.venv/bin/python docs/drawings/render.py

pictures: .venv/.stamp-dev ## Take the pictures of the dashboard in docs/images (needs Debian's chromium)
	.venv/bin/python -m tests.dashboard.pictures docs/images

bench: .venv/.stamp-test .venv-peers/.stamp-peers .venv-airflow/.stamp-airflow ## Measure the library and its peers (BENCH_ARGS='rates --rounds 2' selects a part)
	@tests/services/install_packages.sh
	@for environment in $(CLIENTS); do $(MAKE) $$environment/.stamp-clients; done
	.venv/bin/python -m benchmarks.run $(BENCH_ARGS)

clean: ## Remove the files that the targets create, except the environments (.venv*)
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -exec rm -rf {} +

# dev.txt contains all requirements. The others are parts of it, so each can be installed over another. Three are not
# parts of it, and have separate environments: peers.txt, since talus allows only old versions of packages that the
# library uses; airflow.txt, since Airflow restricts the versions of packages that the library uses in development; and
# clients.txt, the versions with which the pipelines of release 7.5.0 were published, for the one Python that they
# support.
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)
lock: .venv/.stamp-uv ## Lock the dependencies of pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	npm install --prefix requirements --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund
	$(COMPILE) --output-file requirements/dev.txt pyproject.toml --group lint --extra docs --extra test --extra examples --extra notebook --extra dashboard
	$(COMPILE) --output-file requirements/test.txt -c requirements/dev.txt pyproject.toml --extra test --extra examples --extra notebook --extra dashboard --extra docs
	$(COMPILE) --output-file requirements/demo.txt -c requirements/dev.txt pyproject.toml --extra examples --extra dashboard
	$(COMPILE) --output-file requirements/uv.txt -c requirements/dev.txt requirements/uv.in
	$(COMPILE) --output-file requirements/peers.txt requirements/peers.in
	$(COMPILE) --output-file requirements/airflow.txt pyproject.toml --extra airflow requirements/airflow.in
	$(filter-out --universal --fork-strategy fewest --python-version 3.11,$(COMPILE)) --python-version 3.13 --python-platform linux \
	    --output-file requirements/clients.txt -c requirements/clients-frozen.txt requirements/clients.in

# With --compile-bytecode, uv ignores PYTHONDONTWRITEBYTECODE. Without bytecode, each process would compile its imports
# again.
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

# The environment of the peers has the same interpreter as .venv, so that both sides of a comparison run on the same
# Python. It does not contain the library.
.venv-peers/.stamp-peers: requirements/peers.txt .venv-peers/.stamp-uv
	@echo 'Installing $< into .venv-peers.'
	@.venv-peers/bin/uv pip install --quiet --python .venv-peers --require-hashes --no-build --compile-bytecode --requirement $<
	@touch $@

.venv-peers/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create .venv-peers .venv/bin/python

%/.stamp-airflow: requirements/airflow.txt pyproject.toml %/.stamp-uv
	$(install)

# .venv-replaced contains published pipelines with release 7.5.0. .venv-clients contains the same pipelines with this
# library. One package has no wheel, and is built. Most of their 32,000 modules are never imported: Python compiles those
# that are, at their first import.
.venv-replaced/.stamp-clients: requirements/clients.txt .venv-replaced/.stamp-uv
	@echo 'Installing $< into .venv-replaced.'
	@.venv-replaced/bin/uv pip install --quiet --python .venv-replaced --require-hashes \
	    --only-binary :all: --no-binary pims --requirement $<
	@touch $@

.venv-clients/.stamp-clients: .venv-replaced/.stamp-clients pyproject.toml .venv-clients/.stamp-uv
	@echo 'Installing the library in place of the replaced release into .venv-clients.'
	@.venv-clients/bin/uv pip install --quiet --python .venv-clients --require-hashes \
	    --only-binary :all: --no-binary pims --requirement requirements/clients.txt
	@.venv-clients/bin/uv pip install --quiet --python .venv-clients --no-deps --no-build-isolation --editable .
	@touch $@

.venv-replaced/.stamp-uv .venv-clients/.stamp-uv: %/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create $* "$$(requirements/environment.sh find 3.13)"

# The newest supported Python of this machine, independent of the Python that runs the tests: `create` uses the first
# one that is named.
.venv-airflow/.stamp-uv: requirements/uv.txt .venv/.stamp-uv
	@requirements/environment.sh create .venv-airflow \
	    $$(for version in 3.13 3.12 3.11; do requirements/environment.sh find $$version 2>/dev/null || true; done) \
	    .venv/bin/python

.venv/.stamp-uv: requirements/uv.txt
	@requirements/environment.sh create .venv $(PYTHONS)

.venv-%/.stamp-uv: requirements/uv.txt
	@python=$$(requirements/environment.sh find $*); requirements/environment.sh create .venv-$* "$$python"

# The JavaScript packages of the tests. npm, unlike its lock file, knows the registry. Two runs of the suite may begin at
# the same time.
.node/.stamp: requirements/package.json requirements/package-lock.json
	@mkdir -p .node
	@cp requirements/package.json requirements/package-lock.json .node
	@flock .node npm ci --prefix .node --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# A stamp with another path: the environment was moved or copied here, and its scripts still run the old one.
$(shell grep -LxsF '$(CURDIR)' .venv*/.stamp-uv): FORCE
