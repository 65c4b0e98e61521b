#!/usr/bin/env bash
# Runs the suite in several environments at the same time, since most of its time is waiting. Afterwards it runs the
# tests marked `quiet`, which measure time, in one environment after the other. The output of the first environment is
# shown while it runs, that of the others afterwards. In the others, Hypothesis tries fewer examples of each property.
#
# Tests marked `once` run only in the first environment, and so do tests marked `airflow` and `clients`, since Airflow
# and published pipelines have separate Pythons. Separate processes run these at the same time as the others: three run a
# share each of those marked `once` (one if tests are selected), another those with Airflow and pipelines. This shortens
# the longest run.
#
# The script fails if a run fails. The last lines repeat the result of each run and all failures. With COVERAGE set, the
# coverage of the first environment is measured and shown, which takes a tenth more time. Without CLIENTS, the tests
# marked `clients` are left out. For each Debian suite in RABBITMQ_SUITES, the tests marked `versions`, whose results
# may depend on the version of RabbitMQ, run at the same time on the RabbitMQ of this suite. They run in the last
# environment, which therefore does not run them on the RabbitMQ of the system as well: a fault of either version
# appears.
#
# Before the results, the last lines show when each part began and ended, in minutes after the start of the script, and
# the processor time of its processes.
#
# Before it runs the tests, the script makes the environments and installs the services that they need. With arguments,
# only some tests may be selected: the marks of these decide which runs take place, and what is made for them.
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
begins=()
times=()
results=()
failures=()
nothing_collected=5
gather=(${COVERAGE:+--cov=dkist_processing_core --cov-report=})
show=(${COVERAGE:+--cov=dkist_processing_core --cov-report=term --cov-append})
colour=()
[[ -t 1 ]] && colour=(--color=yes)
left_out=
[[ ${CLIENTS:-} ]] || left_out=' and not clients'
trap '((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null' EXIT

# The parts of the suite.
here='not soak and not quiet and not airflow and not clients'
once="$here and once"
everywhere="$here and not once"
but_versions="$everywhere and not versions"
apart="(airflow or clients) and not soak and not quiet$left_out"
of_the_broker='versions and not soak and not quiet'
[[ ${COVERAGE:-} ]] || here=$everywhere # only the first run is measured, so it runs the tests marked `once`
quiet="quiet and not soak$left_out"
quiet_everywhere='quiet and not soak and not airflow and not clients and not once'
# Tests with needs of their own.
with_airflow='airflow and not soak'
with_clients='clients and not soak'
with_node='node and not soak'
with_packages="(rabbitmq or prometheus or strace or node or chromium or airflow or clients) and not soak$left_out"

all=("$here" "$once" "$everywhere" "$but_versions" "$apart" "$of_the_broker" "$quiet" "$quiet_everywhere" \
    "$with_airflow" "$with_clients" "$with_node" "$with_packages")
selected=$(printf '%s\n' "${all[@]}")
if (($#)); then
    selected=$("$first/bin/python" -m tests.parts "${all[@]}" -- "$@") || exit
fi

selects() {
    grep -qxF -- "$1" <<<"$selected"
}

prepare() {
    local goals=()
    selects "$of_the_broker" || suites=()
    selects "$everywhere" || selects "$quiet_everywhere" || others=()
    if selects "$with_clients"; then
        if [[ ${CLIENTS:-} ]]; then
            goals+=("$CLIENTS/.stamp-clients")
        else
            echo 'Python 3.13 is not installed: the tests of published pipelines, which need it, are left out.'
        fi
    fi
    selects "$with_airflow" && goals+=(.venv-airflow/.stamp-airflow)
    ((${#others[@]})) && goals+=("${others[@]/%//.stamp-test}")
    # Packages of Python and of the system come from different archives, and most of the time is waiting for them.
    local making= status=0
    if ((${#goals[@]})); then
        printf '%s\n' "${goals[@]}" | xargs -P 2 -n 1 make --silent &
        making=$!
    fi
    prepare_services || status=$?
    if [[ $making ]]; then
        wait "$making" || status=$?
    fi
    return "$status"
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
    local begin=$SECONDS
    "$2/bin/python" -m pytest --part "${@:3}" "${colour[@]}" 2>&1 | tee "build/$1.log"
    note "$1" "${PIPESTATUS[0]}" "$begin"
}

run_beside() {
    selects "$3" || return 0
    names+=("$1")
    begins+=("$SECONDS")
    "$2/bin/python" -m pytest --part "${@:3}" "${colour[@]}" >"build/$1.log" 2>&1 &
    pids+=($!)
}

note() {
    local log end
    log=$(sed 's/\x1b\[[0-9;]*m//g' "build/$1.log")
    end=$((SECONDS - $(date +%s) + $(stat -c %Y "build/$1.log"))) # the last line of a run is its end
    times+=("build/$1.log: $(minutes "$3") to $(minutes "$end")$(sed -n 's/^processor time: /, /p' <<<"$log" | tail -n 1)")
    results+=("build/$1.log: $(grep -oE '[^=]* in [0-9.]+s\b[^=]*' <<<"$log" | tail -n 1 | sed 's/^ *//; s/ *$//')")
    (($2 == 0 || $2 == nothing_collected)) && return
    status=$2
    failures+=("build/$1.log: exit status $2")
    mapfile -t -O "${#failures[@]}" failures < <(grep -E '^(FAILED|ERROR) ' <<<"$log")
}

minutes() {
    printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

prepare || exit
newest=$first
((${#others[@]})) && newest=${others[-1]}
run_beside test.apart "$first" "$apart" "$@"
if [[ ! ${COVERAGE:-} ]]; then
    if (($#)); then
        run_beside test.once "$first" "$once" "$@"
    else
        # All of them in one process would end minutes after the others.
        for share in 1 2 3; do
            run_beside "test.once-$share" "$first" "$once" --share "$share/3"
        done
    fi
fi
for environment in "${others[@]}"; do
    part=$everywhere
    [[ $environment == "$newest" ]] && ((${#suites[@]})) && part=$but_versions
    run_beside "test$environment" "$environment" "$part" --hypothesis-profile=fast "$@"
done
for suite in "${suites[@]}"; do
    RABBITMQ_SUITE=$suite run_beside "test.rabbitmq-$suite" "$newest" "$of_the_broker" "$@"
done
run "test$first" "$first" "$here" "${gather[@]}" "$@"
for index in "${!pids[@]}"; do
    wait "${pids[$index]}"
    note "${names[$index]}" $? "${begins[$index]}"
    printf '\nbuild/%s.log:\n' "${names[$index]}"
    cat "build/${names[$index]}.log"
done
pids=()
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
