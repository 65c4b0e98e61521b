#!/usr/bin/env bash
# Runs the suite in several environments at once, since most of its time is waiting; then, one after the other, the tests
# marked `quiet`, which measure time. The first environment is seen as it goes; of the others what they print is shown
# afterwards. Tests marked `once` run in the first alone; so do those marked `airflow` and `clients`, beside the others,
# since Airflow and published pipelines have Pythons of their own. Fails if any of them does. With COVERAGE set, the
# first environment's is measured and shown, for a tenth of its time. With CLIENTS empty or not set, the tests marked
# `clients` are left out.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
mkdir -p build
status=0
pids=()
logs=()
nothing_collected=5
gather=(${COVERAGE:+--cov=dkist_processing_core --cov-report=})
show=(${COVERAGE:+--cov=dkist_processing_core --cov-report=term --cov-append})
left_out=
if [[ ! ${CLIENTS:-} ]]; then
    left_out=' and not clients'
    echo 'Python 3.13 is not here: the tests of published pipelines, which need it, are left out.'
fi
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

run() {
    "$1/bin/python" -m pytest "${@:2}"
}

run_beside() {
    logs+=("build/$1.log")
    run "${@:2}" >"${logs[-1]}" 2>&1 &
    pids+=($!)
}

note() {
    (($1 == 0 || $1 == nothing_collected)) || status=$1
}

for environment in "${environments[@]:1}"; do
    run_beside "test$environment" "$environment" -m 'not soak and not quiet and not airflow and not clients and not once' "$@"
done
run_beside test.airflow "${environments[0]}" -m "(airflow or clients) and not soak and not quiet$left_out" "$@"
run "${environments[0]}" -m 'not soak and not quiet and not airflow and not clients' "${gather[@]}" "$@"
note $?
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note $?
    printf '\n%s:\n' "${logs[$index]}"
    cat "${logs[$index]}"
done
pids=()
run "${environments[0]}" -m "quiet and not soak$left_out" "${show[@]}" "$@"
note $?
for environment in "${environments[@]:1}"; do
    run "$environment" -m 'quiet and not soak and not airflow and not clients and not once' "$@"
    note $?
done
exit "$status"
