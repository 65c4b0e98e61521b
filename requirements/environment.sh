#!/usr/bin/env bash
# Finds interpreters and creates virtual environments for the Makefile. Only Python with its standard library is needed.
# Then the uv of the environment, in its locked version, installs all other packages.
#
#   create DIRECTORY PYTHON…   create DIRECTORY with the first usable PYTHON, unless it is a usable environment already
#   find X.Y                   print the path of a Python X.Y of this machine that runs
#   others                     print the oldest and the newest supported version, if found here and not that of .venv
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

supported_ends=(3.11 3.13)

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Run Python code with an interpreter that may be old or broken, such as the shim of a version manager without a
# version.
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

# Read the version from the bundled files of pip: the module may be installed without them.
makes_environments() {
    ask "$1" 'import ensurepip, venv; ensurepip.version()'
}

# On Debian and Ubuntu, `python -m venv` needs a separate package.
require_environments() {
    makes_environments "$1" && return
    local package
    package="python$(version_of "$1")-venv"
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        echo "Installing $package: this machine's Python cannot make a virtual environment without it."
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update </dev/null || true # a repository that does not answer may not be needed
        apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$package" </dev/null >/dev/null || true
    fi
    makes_environments "$1" ||
        fail "Install $package (as root: apt-get install $package) and run make again: $1 makes no virtual environment without it."
}

create() {
    local directory=$1 python
    shift
    # A stamp with another path: the environment was moved or copied, and its scripts still run the old one.
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
