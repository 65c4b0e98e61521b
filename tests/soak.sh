#!/usr/bin/env bash
# Runs the tests marked `soak`, which take minutes, and then the tests with a broker on newer versions of RabbitMQ: one
# for each Debian suite. Of the tests marked `soak`, those that a version of RabbitMQ can change run there as well: with
# fewer kills of a consumer in each of them, and a thousand or more in all.
#
# Before it runs the tests, the script makes the environment and installs the services that they need. With arguments,
# only some tests may be selected: the marks of these decide which runs take place, and what is made for them.
#
#   soak.sh PYTHON "SUITE…" [ARGUMENT…]
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
read -ra suites <<<"$2"
shift 2
nothing_collected=5
kills_per_test=250

long='soak'
with_a_broker='rabbitmq and not soak and not airflow and not clients'
long_on_versions='soak and versions'
# Tests with needs of their own.
with_airflow='soak and airflow'
with_packages='soak and (rabbitmq or prometheus or strace or node or chromium or airflow or clients)'

all=("$long" "$with_a_broker" "$long_on_versions" "$with_airflow" "$with_packages")
selected=$(printf '%s\n' "${all[@]}")
if (($#)); then
    selected=$("$python" -m tests.parts "${all[@]}" -- "$@")
fi

selects() {
    grep -qxF -- "$1" <<<"$selected"
}

if ! selects "$long" && ! selects "$with_a_broker"; then
    echo "No test of make soak was selected by: $*. It runs the tests marked \`soak\`, and those with a broker." >&2
    exit "$nothing_collected"
fi
if selects "$with_a_broker" || selects "$with_packages"; then
    tests/services/install_packages.sh
fi
if selects "$with_airflow"; then
    make --silent .venv-airflow/.stamp-airflow
fi
if selects "$long"; then
    "$python" -m pytest -m "$long" "$@"
fi
if { selects "$with_a_broker" || selects "$long_on_versions"; } && ((${#suites[@]})); then
    fetched=$(tests/services/fetch_rabbitmq.sh "${suites[@]}")
    for suite in $fetched; do
        if selects "$with_a_broker"; then
            RABBITMQ_SUITE=$suite "$python" -m pytest -m "$with_a_broker" "$@"
        fi
        if selects "$long_on_versions"; then
            KILLS=$kills_per_test RABBITMQ_SUITE=$suite "$python" -m pytest -m "$long_on_versions" "$@"
        fi
    done
fi
