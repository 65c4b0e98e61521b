#!/usr/bin/env bash
# Runs the suite in several environments at once, since most of its time is waiting; then, one after the other, the tests
# marked `quiet`, which measure time. The first environment is seen as it goes and gives the coverage; of the others what
# they print is shown afterwards. Fails if any of them does.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
mkdir -p build
status=0
pids=()
nothing_collected=5
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

run() {
    "$1/bin/python" -m pytest "${@:2}"
}

note() {
    (($1 == 0 || $1 == nothing_collected)) || status=$1
}

for environment in "${environments[@]:1}"; do
    run "$environment" -m 'not soak and not quiet' "$@" >"build/test$environment.log" 2>&1 &
    pids+=($!)
done
run "${environments[0]}" -m 'not soak and not quiet' --cov=dkist_processing_core --cov-report= "$@"
note $?
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note $?
    printf '\n%s:\n' "${environments[$((index + 1))]}"
    cat "build/test${environments[$((index + 1))]}.log"
done
pids=()
run "${environments[0]}" -m 'quiet and not soak' --cov=dkist_processing_core --cov-report=term --cov-append "$@"
note $?
for environment in "${environments[@]:1}"; do
    run "$environment" -m 'quiet and not soak' "$@"
    note $?
done
exit "$status"
