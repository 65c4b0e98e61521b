#!/usr/bin/env bash
# Runs the suite in several environments at once, since most of its time is waiting; then, one after the other, the tests
# marked `quiet`, which measure time. The first environment is seen as it goes; of the others what they print is shown
# afterwards. Tests marked `once` run in the first alone. So do those marked `airflow` and `clients`, since Airflow and
# published pipelines have Pythons of their own: beside the others, with those marked `once` that leave the shared broker
# alone, which takes the longest of the runs some time off. Fails if any of them does: what failed, wherever it
# was, stands in the last lines again. With COVERAGE set, the first environment's is measured and shown, for a tenth of
# its time. With CLIENTS empty or not set, the tests marked `clients` are left out. For each Debian suite in RABBITMQ_SUITES
# the tests marked `versions`, about what a version of RabbitMQ can change, run beside the others on the RabbitMQ of it.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
mkdir -p build
suites=${RABBITMQ_SUITES:-}
unset RABBITMQ_SUITES # the suite runs this script itself, as if on a machine without them
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
    echo 'Python 3.13 is not here: the tests of published pipelines, which need it, are left out.'
fi
beside='once and not rabbitmq'
[[ ${COVERAGE:-} ]] && beside='soak' # what is beside is not measured, and none of these is run here
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
