#!/usr/bin/env bash
# Runs the tests that start no process, and therefore need no service, on all processors: as many processes as there are
# processors divide the tests among them. The output of the first process is shown while it runs, that of the others
# afterwards. The script fails if one of them fails. Its last lines repeat the result of each and all failures. Tests
# that measure time are left out. Hypothesis tries fewer examples of each property than in `make test`.
#
# With arguments, which may select few tests or start a debugger, one process runs them.
#
#   quick.sh PYTHON [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift
processes=$(nproc)
marks='not processes and not rabbitmq and not node and not airflow and not clients and not quiet and not soak'
status=0
nothing_collected=5
pids=()
results=()
failures=()
colour=()
[[ -t 1 ]] && colour=(--color=yes)
mkdir -p build
claims=$(mktemp -d) || exit
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null; rm -rf "$claims"' EXIT

run() {
    "$python" -m pytest -q -m "$marks" --hypothesis-profile=fast --claims="$claims" "$@"
}

if (($#)); then
    run "$@"
    status=$?
    ((status == nothing_collected)) &&
        echo "No test of make quick was selected by: $*. Tests that start processes or measure time run by make test." >&2
    exit "$status"
fi

note() {
    local log
    log=$(sed 's/\x1b\[[0-9;]*m//g' "build/quick.$1.log")
    results+=("build/quick.$1.log: $(tail -n 1 <<<"$log")")
    (($2 == 0 || $2 == nothing_collected)) && return
    status=$2
    failures+=("build/quick.$1.log: exit status $2")
    mapfile -t -O "${#failures[@]}" failures < <(grep -E '^(FAILED|ERROR) ' <<<"$log")
}

for ((process = 2; process <= processes; process++)); do
    run "${colour[@]}" >"build/quick.$process.log" 2>&1 &
    pids+=($!)
done
run "${colour[@]}" 2>&1 | tee build/quick.1.log
note 1 "${PIPESTATUS[0]}"
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note "$((index + 2))" $?
    cat "build/quick.$((index + 2)).log"
done
pids=()
if ((processes > 1)); then
    printf '\nResults:\n'
    printf '  %s\n' "${results[@]}"
fi
if ((status)); then
    printf '\nFailed:\n'
    printf '  %s\n' "${failures[@]}"
fi
exit "$status"
