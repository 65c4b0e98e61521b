#!/usr/bin/env bash
# Runs the suite in several environments at the same time, since most of its time is waiting. Afterwards it runs the
# tests marked `quiet`, which measure time, in one environment after the other. The output of the first environment is
# shown while it runs, that of the others afterwards.
#
# Tests marked `once` run only in the first environment, and so do tests marked `airflow` and `clients`, since Airflow
# and published pipelines have separate Pythons. `airflow`, `clients`, and those of `once` that do not use the shared
# broker run in a separate process at the same time as the others, which shortens the longest run.
#
# The script fails if a run fails. The last lines repeat all failures. With COVERAGE set, the coverage of the first
# environment is measured and shown, which takes a tenth more time. Without CLIENTS, the tests marked `clients` are left
# out. For each Debian suite in RABBITMQ_SUITES, the tests marked `versions`, whose results may depend on the version of
# RabbitMQ, run at the same time on the RabbitMQ of this suite.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
mkdir -p build
suites=${RABBITMQ_SUITES:-}
unset RABBITMQ_SUITES # a test runs this script, and must not use them
status=0
pids=()
names=()
failures=()
nothing_collected=5
gather=(${COVERAGE:+--cov=dkist_processing_core --cov-report=})
show=(${COVERAGE:+--cov=dkist_processing_core --cov-report=term --cov-append})
colour=()
[[ -t 1 ]] && colour=(--color=yes)
left_out=
if [[ ! ${CLIENTS:-} ]]; then
    left_out=' and not clients'
    echo 'Python 3.13 is not installed: the tests of published pipelines, which need it, are left out.'
fi
beside='once and not rabbitmq'
[[ ${COVERAGE:-} ]] && beside='soak' # only the first run is measured, so it runs the tests marked `once`
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

run() {
    "$2/bin/python" -m pytest "${@:3}" "${colour[@]}" 2>&1 | tee "build/$1.log"
    note "$1" "${PIPESTATUS[0]}"
}

run_beside() {
    names+=("$1")
    "$2/bin/python" -m pytest "${@:3}" "${colour[@]}" >"build/$1.log" 2>&1 &
    pids+=($!)
}

note() {
    (($2 == 0 || $2 == nothing_collected)) && return
    status=$2
    failures+=("build/$1.log: exit status $2")
    mapfile -t -O "${#failures[@]}" failures < <(sed 's/\x1b\[[0-9;]*m//g' "build/$1.log" | grep -E '^(FAILED|ERROR) ')
}

for environment in "${environments[@]:1}"; do
    run_beside "test$environment" "$environment" -m 'not soak and not quiet and not airflow and not clients and not once' "$@"
done
run_beside test.airflow "${environments[0]}" -m "(airflow or clients or ($beside)) and not soak and not quiet$left_out" "$@"
for suite in $suites; do
    RABBITMQ_SUITE=$suite run_beside "test.rabbitmq-$suite" "${environments[0]}" -m 'versions and not soak and not quiet' "$@"
done
run "test${environments[0]}" "${environments[0]}" -m "not soak and not quiet and not airflow and not clients and not ($beside)" \
    "${gather[@]}" "$@"
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note "${names[$index]}" $?
    printf '\nbuild/%s.log:\n' "${names[$index]}"
    cat "build/${names[$index]}.log"
done
pids=()
run "quiet${environments[0]}" "${environments[0]}" -m "quiet and not soak$left_out" "${show[@]}" "$@"
for environment in "${environments[@]:1}"; do
    run "quiet$environment" "$environment" -m 'quiet and not soak and not airflow and not clients and not once' "$@"
done
if ((status)); then
    printf '\nFailed:\n'
    printf '  %s\n' "${failures[@]}"
fi
exit "$status"
