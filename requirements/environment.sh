#!/usr/bin/env bash
# The interpreters and virtual environments behind the Makefile. Only Python and what it brings are needed to begin with;
# the environment's own uv, put there by its locked version, installs everything else.
#
#   create DIRECTORY PYTHON…   make DIRECTORY with the first PYTHON that will do, unless a usable one stands there already
#   find X.Y                   print a Python X.Y of this machine that really runs
#   others                     print the ends of the supported range, found here, that .venv is not
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

supported_ends=(3.11 3.13)

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Run Python code with an interpreter of any age or state: a version manager's shim may stand on PATH and lead nowhere.
ask() {
    "$1" -c "import sys; $2" </dev/null 2>/dev/null
}

version_of() {
    ask "$1" 'print("%d.%d" % sys.version_info[:2])'
}

is_recent() {
    ask "$1" 'sys.exit(sys.version_info < (3, 11))'
}

find_python() {
    local candidate
    for candidate in "python$1" "${HOME:-}/.pyenv/versions/$1"*"/bin/python$1" \
        "$(.venv/bin/uv python find --system --no-python-downloads "$1" 2>/dev/null || true)"; do
        if [[ $(version_of "$candidate") == "$1" ]]; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The version is read from the files that pip is made from: the module alone may be there without them.
makes_environments() {
    ask "$1" 'import ensurepip, venv; ensurepip.version()'
}

# Debian and Ubuntu keep what `python -m venv` needs in a package of its own.
require_environments() {
    makes_environments "$1" && return
    local package
    package="python$(version_of "$1")-venv"
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        echo "Installing $package: this machine's Python cannot make a virtual environment without it."
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update </dev/null || true # a repository that does not answer may not be the one that is needed
        apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$package" </dev/null >/dev/null || true
    fi
    makes_environments "$1" ||
        fail "Install $package (as root: apt-get install $package) and run make again: $1 makes no virtual environment without it."
}

create() {
    local directory=$1 python
    shift
    # A stamp that names another place: the environment was moved or copied, and its scripts still run the old one.
    local home=$PWD
    [[ ! -e $directory/.stamp-uv ]] || home=$(<"$directory/.stamp-uv")
    if [[ $home != "$PWD" ]] || ! is_recent "$directory/bin/python" || ! ask "$directory/bin/python" 'import pip'; then
        for python in "$@"; do
            is_recent "$python" && break
            python=
        done
        [[ ${python:-} ]] ||
            fail "Install Python 3.11 or later (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name yours with PYTHON=…: none of these is one: $*."
        require_environments "$python"
        echo "Making $directory with Python $(version_of "$python")."
        "$python" -m venv --clear "$directory"
    fi
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-user --require-hashes \
        --requirement requirements/uv.txt
    printf '%s\n' "$PWD" >"$directory/.stamp-uv"
}

others() {
    local version
    for version in "${supported_ends[@]}"; do
        if [[ $(version_of .venv/bin/python) != "$version" ]] && find_python "$version" >/dev/null; then
            echo "$version"
        fi
    done
}

case ${1:-} in
    create) create "${@:2}" ;;
    find) find_python "$2" || fail "Install Python $2, or leave it out of TEST_PYTHONS: none that runs was found." ;;
    others) others ;;
    *) fail "Usage: environment.sh create DIRECTORY PYTHON… | find X.Y | others" ;;
esac
