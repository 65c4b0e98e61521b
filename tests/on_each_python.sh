#!/usr/bin/env bash
# Runs the suite in several environments, beside each other as far as the processors allow. Afterwards it runs the tests
# marked `quiet`, which measure time, in one environment after the other. The output of the first environment is shown
# while it runs, that of the others afterwards. In the others, Hypothesis tries fewer examples of each property.
#
# Tests marked `once` run only in the first environment, and so do tests marked `airflow` and `clients`, since Airflow
# and published pipelines have separate Pythons. Separate processes run these beside the others: three divide
# those marked `once` among them (one runs them if tests are selected), one runs those with Airflow, one those of
# pipelines. Two runs for each processor take place at a time, and the others wait for their turns: more would only make
# each other late, and then limits of time in tests do not hold.
#
# The script fails if a run fails. The last lines repeat the result of each run and all failures. With COVERAGE set, the
# coverage of the first environment is measured and shown, which takes a tenth more time. Without CLIENTS, the tests
# marked `clients` are left out. For each Debian suite in RABBITMQ_SUITES, the tests marked `versions`, whose results
# may depend on the version of RabbitMQ, run on the RabbitMQ of this suite as well. They run in the last
# environment, which therefore does not run them on the RabbitMQ of the system as well: a fault of either version
# appears.
#
# Before the results, the last lines show when each part began and ended, in minutes after the start of the script, and
# the processor time of its processes.
#
# Before it runs the tests, the script installs the services that they need. Each run makes its environment in its turn.
# With arguments, only some tests may be selected: the marks of these decide which runs take place, and what is made for
# them.
#
#   on_each_python.sh "DIRECTORY…" [ARGUMENT…]
set -uo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

read -ra environments <<<"$1"
shift
first=${environments[0]}
others=("${environments[@]:1}")
mkdir -p build
read -ra suites <<<"${RABBITMQ_SUITES:-}"
unset RABBITMQ_SUITES # a test runs this script, and must not use them
status=0
pids=()
names=()
times=()
results=()
made=()
failures=()
nothing_collected=5
gather=(${COVERAGE:+--cov=dkist_processing_core --cov-report=})
show=(${COVERAGE:+--cov=dkist_processing_core --cov-report=term --cov-append})
colour=()
[[ -t 1 ]] && colour=(--color=yes)
left_out=
[[ ${CLIENTS:-} ]] || left_out=' and not clients'
shared=$(mktemp -d) || exit
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null; rm -rf "$shared"' EXIT
claims=$shared/claims
mkdir "$claims"
# A run beside the first one takes a character from here for its turn.
mkfifo "$shared/turns"
exec {turns}<>"$shared/turns"
printf '%*s' $((2 * $(nproc) - 1)) '' >&"$turns"

# The parts of the suite.
here='not soak and not quiet and not airflow and not clients'
once="$here and once"
everywhere="$here and not once"
but_versions="$everywhere and not versions"
with_airflow='airflow and not soak and not quiet'
with_clients='clients and not airflow and not soak and not quiet'
of_the_broker='versions and not soak and not quiet'
[[ ${COVERAGE:-} ]] || here=$everywhere # only the first run is measured, so it runs the tests marked `once`
quiet="quiet and not soak$left_out"
quiet_everywhere='quiet and not soak and not airflow and not clients and not once'
# Tests with needs of their own.
needs_airflow='airflow and not soak'
needs_clients='clients and not soak'
with_node='node and not soak'
with_packages="(rabbitmq or prometheus or strace or node or chromium or airflow or clients) and not soak$left_out"

all=("$here" "$once" "$everywhere" "$but_versions" "$with_airflow" "$with_clients" "$of_the_broker" "$quiet" \
    "$quiet_everywhere" "$needs_airflow" "$needs_clients" "$with_node" "$with_packages")
selected=$(printf '%s\n' "${all[@]}")
if (($#)); then
    selected=$("$first/bin/python" -m tests.parts "${all[@]}" -- "$@") || exit
fi

selects() {
    grep -qxF -- "$1" <<<"$selected"
}

# Lists the environments to make, and leaves out those that no selected test needs.
choose_environments() {
    selects "$of_the_broker" || suites=()
    selects "$everywhere" || selects "$quiet_everywhere" || others=()
    if selects "$needs_clients"; then
        if [[ ${CLIENTS:-} ]]; then
            made+=("$CLIENTS/.stamp-clients")
        else
            echo 'Python 3.13 is not installed: the tests of published pipelines, which need it, are left out.'
        fi
    fi
    selects "$needs_airflow" && made+=(.venv-airflow/.stamp-airflow)
    ((${#others[@]})) && made+=("${others[@]/%//.stamp-test}")
}

# Two parts may need the same environment.
make_environment() {
    [[ " ${made[*]} " != *" $1 "* ]] || flock "build/${1%/*}.lock" make --silent "$1"
}

prepare_services() {
    if selects "$with_packages"; then
        tests/services/install_packages.sh || return
    fi
    if selects "$with_node"; then
        make --silent .node/.stamp || return # npm is one of the packages
    fi
    if ((${#suites[@]})); then
        suites=$(tests/services/fetch_rabbitmq.sh "${suites[@]}") || return
        read -ra suites <<<"$suites"
    fi
}

run() {
    selects "$3" || return 0
    : >"$shared/$1"
    "$2/bin/python" -m pytest --part "${@:3}" "${colour[@]}" {turns}>&- 2>&1 | tee "build/$1.log"
    note "$1" "${PIPESTATUS[0]}"
}

# The second argument is the stamp of the environment that the part waits for.
run_beside() {
    selects "$4" || return 0
    names+=("$1")
    in_turn "$@" >"build/$1.log" 2>&1 &
    pids+=($!)
}

in_turn() {
    local part
    read -r -N 1 -u "$turns"
    trap 'printf " " >&"$turns"' EXIT
    : >"$shared/$1"
    { make_environment "$2" && exec "$3/bin/python" -m pytest --part "${@:4}" "${colour[@]}"; } {turns}>&- &
    part=$!
    trap 'kill "$part"' TERM
    wait "$part"
}

note() {
    local log
    log=$(sed 's/\x1b\[[0-9;]*m//g' "build/$1.log")
    # The last line of a run is its end.
    times+=("build/$1.log: $(minutes "$shared/$1") to $(minutes "build/$1.log")$(sed -n 's/^processor time: /, /p' <<<"$log" | tail -n 1)")
    results+=("build/$1.log: $(grep -oE '[^=]* in [0-9.]+s\b[^=]*' <<<"$log" | tail -n 1 | sed 's/^ *//; s/ *$//')")
    (($2 == 0 || $2 == nothing_collected)) && return
    status=$2
    failures+=("build/$1.log: exit status $2")
    mapfile -t -O "${#failures[@]}" failures < <(grep -E '^(FAILED|ERROR) ' <<<"$log")
}

# Prints when a file was written, in minutes after the start of the script.
minutes() {
    local seconds=$((SECONDS - $(date +%s) + $(stat -c %Y "$1")))
    printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
}

choose_environments
prepare_services || exit
newest=$first
((${#others[@]})) && newest=${others[-1]}
run_beside test.airflow .venv-airflow/.stamp-airflow "$first" "$with_airflow" "$@"
[[ ${CLIENTS:-} ]] && run_beside test.clients "$CLIENTS/.stamp-clients" "$first" "$with_clients" "$@"
for environment in "${others[@]}"; do
    part=$everywhere
    [[ $environment == "$newest" ]] && ((${#suites[@]})) && part=$but_versions
    run_beside "test$environment" "$environment/.stamp-test" "$environment" "$part" --hypothesis-profile=fast "$@"
done
for suite in "${suites[@]}"; do
    RABBITMQ_SUITE=$suite run_beside "test.rabbitmq-$suite" "$newest/.stamp-test" "$newest" "$of_the_broker" "$@"
done
if [[ ! ${COVERAGE:-} ]]; then
    if (($#)); then
        run_beside test.once none "$first" "$once" "$@"
    else
        # All of them in fewer processes would end minutes after the others.
        for process in 1 2 3; do
            run_beside "test.once-$process" none "$first" "$once" --claims="$claims"
        done
    fi
fi
run "test$first" "$first" "$here" "${gather[@]}" "$@"
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note "${names[$index]}" $?
    printf '\nbuild/%s.log:\n' "${names[$index]}"
    cat "build/${names[$index]}.log"
done
pids=()
for environment in "${made[@]}"; do # some may be selected for these tests only
    make_environment "$environment" && continue
    status=$?
    failures+=("$environment: the environment was not made")
done
run "quiet$first" "$first" "$quiet" "${show[@]}" "$@"
for environment in "${others[@]}"; do
    run "quiet$environment" "$environment" "$quiet_everywhere" "$@"
done
if ((${#results[@]} == 0)); then
    echo "No test was selected by: $*. The tests marked \`soak\` run by make soak." >&2
    exit "$nothing_collected"
fi
if ((${#results[@]} > 1)); then
    printf '\nTimes:\n'
    printf '  %s\n' "${times[@]}"
    printf '\nResults:\n'
    printf '  %s\n' "${results[@]}"
fi
if ((status)); then
    printf '\nFailed:\n'
    printf '  %s\n' "${failures[@]}"
fi
exit "$status"
