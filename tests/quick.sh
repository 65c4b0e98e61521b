#!/usr/bin/env bash
# Runs the tests that start no process, and therefore need no service, on all processors: a separate process runs one
# share of the tests for each processor. The output of the first share is shown while it runs, that of the others
# afterwards. The script fails if a share fails. Tests that measure time are left out. Hypothesis tries fewer examples
# of each property than in `make test`.
#
# With arguments, which may select few tests or start a debugger, one process runs them.
#
#   quick.sh PYTHON [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift
shares=$(nproc)
marks='not processes and not rabbitmq and not node and not airflow and not clients and not quiet and not soak'
status=0
nothing_collected=5
pids=()
mkdir -p build
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

run() {
    "$python" -m pytest -q -m "$marks" --hypothesis-profile=fast --share "$1/$shares" "${@:2}"
}

if (($#)); then
    shares=1
    run 1 "$@"
    status=$?
    ((status == nothing_collected)) &&
        echo "No test of make quick was selected by: $*. Tests that start processes or measure time run by make test." >&2
    exit "$status"
fi

note() {
    (($1 == nothing_collected)) || status=$1
}

for ((share = 2; share <= shares; share++)); do
    run "$share" >"build/quick.$share.log" 2>&1 &
    pids+=($!)
done
run 1 || note $?
for index in "${!pids[@]}"; do
    wait "${pids[$index]}" || note $?
    cat "build/quick.$((index + 2)).log"
done
pids=()
exit "$status"
