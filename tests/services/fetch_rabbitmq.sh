#!/usr/bin/env bash
# Makes the RabbitMQ of other Debian suites available to the tests, in addition to the system's. Each suite has a folder
# `.rabbitmq/SUITE` in the repository, 150 MB each. Later runs use it again; `make clean` does not remove it.
#
#   fetch_rabbitmq.sh SUITE…            fetch what is missing, and print the suites that this machine can run
#   fetch_rabbitmq.sh --check SUITE…    change nothing; exit 1 with one sentence if a suite is missing
#
# If the machine can run none, no suite is printed, and one sentence on standard error gives the reason. If it can run
# them, but a suite cannot be fetched, the exit status is 1.
#
# trixie is Debian 13 (RabbitMQ 4.0.5). sid is Debian's unstable suite, whose versions change: remove its folder to
# fetch a newer one. The packages come from the Debian archive in this machine's apt sources, and apt verifies them.
# They are only unpacked: nothing is installed, no script of the packages runs, and no service starts.
#
# To run a node, the tests mount its /usr over that of the machine (bind mount), in a separate mount namespace
# (tests/services/rabbitmq.py). This requires root, and Debian, where apt has a Debian archive and its keys.

set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/../.."

store=.rabbitmq
keys=/usr/share/keyrings/debian-archive-keyring.gpg
# The server needs the commands of its scripts and their shell, but its package does not depend on them.
packages=(rabbitmq-server bash coreutils dash grep sed)

fail() {
    printf '%s.\n' "$1" >&2
    exit 1
}

leave_out() {
    printf "Only the system's RabbitMQ is tested: %s.\n" "$1" >&2
    exit 0
}

# Ends the script if this machine cannot run another RabbitMQ.
look_at_machine() {
    # shellcheck source=/dev/null
    . /etc/os-release
    [[ ${ID-} == debian ]] || leave_out "newer versions are taken from Debian, and this is ${PRETTY_NAME-another system}"
    ((EUID == 0)) || leave_out "a newer version needs a mount, and therefore root"
    unshare --mount --propagation private sh -c 'mount --bind /usr /usr' 2>/dev/null ||
        leave_out "a newer version needs a mount, for which this process has no permission"
}

is_here() {
    compgen -G "$store/$1/usr/lib/rabbitmq/lib/rabbitmq_server-*" >/dev/null
}

# Prints the address of the first Debian archive in the apt sources, with the component main.
archive() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)' "Created-By: Packages" |
        awk '$2 == "Debian" && $3 == "Debian" && $4 == "main" { print $1; exit }'
}

fetch() {
    local suite=$1 from work output
    from=$(archive)
    [[ $from ]] || fail "apt has no list of a Debian archive to fetch RabbitMQ of $suite from: run apt-get update"
    work=$(mktemp -d "$store/.$suite.XXXXXX")
    # shellcheck disable=SC2064  # the folder of this call
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/apt/{sources,lists/partial,archives/partial} "$work/root"
    # With an empty list of installed packages, apt downloads all dependencies.
    : >"$work/apt/status"
    printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$from" "$suite" >"$work/apt/sources/suite.list"
    {
        printf 'Dir::State "%s/apt";\n' "$PWD/$work"
        printf 'Dir::State::status "%s/apt/status";\n' "$PWD/$work"
        printf 'Dir::Cache "%s/apt";\n' "$PWD/$work"
        printf 'Dir::Etc::%s "/dev/null";\n' sourcelist preferences preferencesparts
        printf 'Dir::Etc::sourceparts "%s/apt/sources";\n' "$PWD/$work"
        printf 'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n'
    } >"$work/apt/apt.conf"
    export APT_CONFIG=$PWD/$work/apt/apt.conf DEBIAN_FRONTEND=noninteractive
    output=$({ apt-get -qq update && apt-get -qq --yes --download-only install "${packages[@]}"; } 2>&1) ||
        fail "RabbitMQ of $suite cannot be fetched; to test without it, set RABBITMQ_SUITES= (apt-get: $(tail -n 1 <<<"$output"))"
    unset APT_CONFIG
    for package in "$work"/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar --extract --directory "$work/root" --no-same-owner --keep-directory-symlink \
                --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
    done
    [[ -e $work/root/usr/bin/sh ]] || ln -s dash "$work/root/usr/bin/sh"
    find "$work/root" -mindepth 1 -maxdepth 1 ! -name usr -exec rm -rf {} +
    chmod 755 "$work/root"
    mv "$work/root" "$store/$suite"
    rm -rf "$work"
    trap - EXIT
}

only_checking=
if [[ ${1-} == --check ]]; then
    only_checking=yes
    shift
fi
if [[ $only_checking ]]; then
    for suite in "$@"; do
        is_here "$suite" || fail "RabbitMQ of $suite is missing: fetch it by tests/services/fetch_rabbitmq.sh $suite"
    done
    exit 0
fi
(($#)) && look_at_machine
for suite in "$@"; do
    is_here "$suite" && continue
    mkdir -p "$store"
    exec 9<"$store"
    flock 9
    is_here "$suite" || fetch "$suite"
done
echo "$*"
