#!/bin/sh
# Makes RabbitMQ, PostgreSQL, Redis, Prometheus, strace, npm and Chromium available to the tests through Debian's or
# Ubuntu's own packages.
#
#   install_packages.sh                      install what is missing; silent on success
#   install_packages.sh --check              change nothing; exit 1 with one sentence if RabbitMQ is missing
#   install_packages.sh --check postgresql   the same for PostgreSQL's server
#   install_packages.sh --check redis        the same for Redis
#   install_packages.sh --check prometheus   the same for Prometheus, which brings promtool
#   install_packages.sh --check strace       the same for strace
#   install_packages.sh --check npm          the same for npm, which brings Node.js
#   install_packages.sh --check chromium     the same for Chromium
#
# The tests start private servers. Therefore this script must start no service, enable none for the next boot, leave no
# open port, and create no database cluster of the machine.

set -eu

server=/usr/lib/rabbitmq/bin/rabbitmq-server
postgres=/usr/lib/postgresql/*/bin/initdb # each version has a separate folder, and none is on PATH
redis=/usr/bin/redis-server
prometheus=/usr/bin/prometheus
policy=/usr/sbin/policy-rc.d
cluster_settings=/etc/postgresql-common/createcluster.conf
missing_rabbitmq='RabbitMQ is missing: install the package rabbitmq-server (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_postgres='PostgreSQL is missing: install the package postgresql (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_redis='Redis is missing: install the package redis-server (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_prometheus='Prometheus is missing: install the package prometheus (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_strace='strace is missing: install the package strace (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_npm='npm is missing: install the package npm (Debian, Ubuntu), as root by tests/services/install_packages.sh'
missing_chromium='Chromium is missing: install the package chromium (Debian), as root by tests/services/install_packages.sh'
units='rabbitmq-server.service epmd.service epmd.socket postgresql.service redis-server.service prometheus.service'

fail() {
    printf '%s.\n' "$1" >&2
    exit 1
}

# Prints the open ports of public services, which /proc shows in hexadecimal: epmd 4369, AMQP 5672 and distribution
# 25672 of a broker, 5432 of PostgreSQL, 6379 of Redis and 9090 of Prometheus.
listening() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk '$4 == "0A" && $2 ~ /:(1111|1628|6448|1538|18EB|2382)$/ { print $2 }' | sort -u
}

# Prints the installed units. New ones are disabled; earlier ones belong to the owner of the machine.
unit_files() {
    for unit in $units; do
        if [ -e "/lib/systemd/system/$unit" ]; then printf '%s ' "$unit"; fi
    done
}

has_postgres() {
    for program in $postgres; do
        if [ -x "$program" ]; then return 0; fi
    done
    command -v initdb >/dev/null
}

has_redis() {
    [ -x "$redis" ] || command -v redis-server >/dev/null
}

has_prometheus() {
    [ -x "$prometheus" ] || command -v prometheus >/dev/null
}

clusters() {
    for settings in /etc/postgresql/*/*/postgresql.conf; do
        if [ -e "$settings" ]; then printf '%s ' "$settings"; fi
    done
}

# Sets the list of missing packages, and the message about the first one.
look() {
    packages=
    missing=
    if ! command -v chromium >/dev/null; then packages=chromium missing=$missing_chromium; fi
    if ! command -v npm >/dev/null; then packages="npm $packages" missing=$missing_npm; fi
    if ! command -v strace >/dev/null; then packages="strace $packages" missing=$missing_strace; fi
    if ! has_prometheus; then packages="prometheus $packages" missing=$missing_prometheus; fi
    if ! has_redis; then packages="redis-server $packages" missing=$missing_redis; fi
    if ! has_postgres; then packages="postgresql $packages" missing=$missing_postgres; fi
    if [ ! -x "$server" ]; then packages="rabbitmq-server $packages" missing=$missing_rabbitmq; fi
}

if [ "${1-}" = --check ]; then
    case ${2-rabbitmq} in
    chromium) if ! command -v chromium >/dev/null; then fail "$missing_chromium"; fi ;;
    npm) if ! command -v npm >/dev/null; then fail "$missing_npm"; fi ;;
    strace) if ! command -v strace >/dev/null; then fail "$missing_strace"; fi ;;
    prometheus) if ! has_prometheus; then fail "$missing_prometheus"; fi ;;
    redis) if ! has_redis; then fail "$missing_redis"; fi ;;
    postgresql) if ! has_postgres; then fail "$missing_postgres"; fi ;;
    *) if [ ! -x "$server" ]; then fail "$missing_rabbitmq"; fi ;;
    esac
    exit 0
fi
look
if [ -z "$packages" ]; then exit 0; fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then fail "$missing"; fi
if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then fail "$missing"; fi
    exec sudo -n sh "$0"
fi

# Two installations at the same time would remove each other's policy file. A lock on a directory creates no file.
exec 9</usr/sbin
flock 9
look
if [ -z "$packages" ]; then exit 0; fi

log=$(mktemp)
guard=
kept_settings=
# shellcheck disable=SC2329  # called by the trap
clean_up() {
    if [ -n "$kept_settings" ]; then cat "$kept_settings" >"$cluster_settings" && rm -f "$kept_settings"; fi
    if [ -n "$guard" ]; then rm -f "$policy"; fi
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

if [ ! -e "$policy" ]; then
    guard=ours
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
else
    for package in $packages; do
        denied=101
        case $package in
        strace | npm | chromium) ;; # these have no service
        *)
            denied=0
            "$policy" "$package" start >/dev/null 2>&1 || denied=$?
            ;;
        esac
        if [ "$denied" -ne 101 ]; then
            fail "$missing; this script does not install it, because $policy would allow it to start a public service"
        fi
    done
fi

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
listening_before=$(listening)
units_before=$(unit_files)
clusters_before=$(clusters)

apt() {
    # Close descriptor 9, so that no process that a package starts keeps the lock.
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null 9>&-
}

# Unlike dpkg's lock, the lock on the package lists has no timeout, so wait for it here. An update that fails for
# another reason (one unreachable mirror of several) does not matter if the installation succeeds.
waited=0
until apt update; do
    if [ "$waited" -ge 300 ] || ! grep -q 'Could not get lock' "$log"; then break; fi
    sleep 5
    waited=$((waited + 5))
done

apt_install() {
    apt install --yes --no-install-recommends --no-remove "$@" || true
}

# The installation of each server version creates a cluster, unless a file of another package prevents this. Therefore
# install that package first.
if ! has_postgres; then
    apt_install postgresql-common
    if [ -e "$cluster_settings" ]; then
        kept_settings=$(mktemp)
        cat "$cluster_settings" >"$kept_settings"
        printf '\ncreate_main_cluster = false\n' >>"$cluster_settings"
    fi
fi
# shellcheck disable=SC2086  # package names, one word each
apt_install $packages
error=$(grep '^E:' "$log" | head -n 1 || true)
look
if [ -n "$packages" ]; then
    fail "$missing (apt-get: $error)"
fi

for unit in $(unit_files); do
    case " $units_before" in
    *" $unit "*) ;;
    *)
        # A service must not run after the next boot either.
        if command -v systemctl >/dev/null; then systemctl disable "$unit" >/dev/null 2>&1 9>&- || true; fi
        ;;
    esac
done

if [ "$(listening)" != "$listening_before" ]; then
    fail "The packages are installed, but one of them started a public service on this machine: stop it (4369, 5672, 25672, 5432, 6379 or 9090)"
fi
if [ "$(clusters)" != "$clusters_before" ]; then
    fail "PostgreSQL is installed, but its installation created a database cluster: remove it with pg_dropcluster"
fi
