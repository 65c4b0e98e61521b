#!/usr/bin/env bash
# Runs the suite in several environments at once, since most of its time is waiting: the first is seen as it goes, and
# gives the coverage; the others are shown afterwards. Fails if any of them does.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
mkdir -p build
status=0
pids=()
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

for environment in "${environments[@]:1}"; do
    "$environment/bin/python" -m pytest "$@" >"build/test$environment.log" 2>&1 &
    pids+=($!)
done
"${environments[0]}/bin/python" -m pytest --cov=dkist_processing_core --cov-report=term "$@" || status=$?
for index in "${!pids[@]}"; do
    wait "${pids[$index]}" || status=$?
    printf '\n%s:\n' "${environments[$((index + 1))]}"
    cat "build/test${environments[$((index + 1))]}.log"
done
pids=()
exit "$status"
