#!/bin/sh
# Set up .venv in the current folder: Python packages as docker/constraints.txt pins
# them, and FFCV with its system packages (docker/apt-ffcv.txt) where this user may
# install those; for dev also what tests start (docker/apt-dev.txt). What is set up
# already is not set up again.
#
#   docker/install.sh            to use the system
#   docker/install.sh dev        to work on it: tests and checks too
set -eu

say() { printf '%s\n' "rrl_dist: $*"; }

find_python() {
    for candidate in ${PYTHON:-} python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# "", "sudo -n", or "no": how this user may install system packages.
how_to_install() {
    if ! command -v apt-get >/dev/null 2>&1; then echo no
    elif [ "$(id -u)" = 0 ]; then echo ""
    elif sudo -n true 2>/dev/null; then echo "sudo -n"
    else echo no
    fi
}

apt_install() { # as, packages
    as=$1
    shift
    $as apt-get update -qq >/dev/null &&
        $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "$@" >/dev/null
}

make_venv() {
    python=$(find_python)
    if [ -z "$python" ]; then
        say "no Python 3.11 or later found; install one, or set PYTHON=/path/to/it"
        exit 1
    fi
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        as=$(how_to_install)
        if [ "$as" = no ] || ! apt_install "$as" python3-venv python3-dev; then
            say "$python has no venv module; install python3-venv"
            exit 1
        fi
    fi
    "$python" -m venv .venv
}

install_python_packages() { # extras
    say "installing Python packages into .venv (once, a few minutes)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --constraint docker/constraints.txt --editable ".$1"
}

ffcv_libraries_are_there() {
    pkg-config --exists opencv4 libturbojpeg 2>/dev/null && command -v g++ >/dev/null
}

install_ffcv() {
    if [ -f "$ffcv_failed" ]; then
        say "going on without FFCV: it failed before; remove $ffcv_failed to try again"
        return
    fi
    if ! ffcv_libraries_are_there; then
        as=$(how_to_install)
        packages=$(xargs <docker/apt-ffcv.txt)
        if [ "$as" = no ]; then
            say "going on without FFCV: installing $packages takes root"
            return
        fi
        say "installing FFCV's system packages"
        # shellcheck disable=SC2086  # a list of words
        if ! apt_install "$as" $packages; then
            say "going on without FFCV: apt-get could not install $packages"
            touch "$ffcv_failed"
            return
        fi
    fi
    if .venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
        --constraint docker/constraints.txt --editable '.[ffcv]' \
        >.venv/ffcv.log 2>&1; then
        touch "$ffcv_stamp"
    else
        say "going on without FFCV: it did not build, see .venv/ffcv.log"
        touch "$ffcv_failed"
    fi
}

test_programs_are_there() {
    command -v curl >/dev/null && command -v ip >/dev/null &&
        ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1
}

install_test_programs() {
    if test_programs_are_there || [ -f "$programs_failed" ]; then
        return
    fi
    as=$(how_to_install)
    packages=$(xargs <docker/apt-dev.txt)
    say "installing $packages for tests"
    # shellcheck disable=SC2086  # a list of words
    if [ "$as" = no ] || ! apt_install "$as" $packages; then
        say "going on; tests of what is missing skip or fail: not installed, $packages"
        touch "$programs_failed"
    fi
}

mode=${1:-use}
wanted=$(cat pyproject.toml docker/constraints.txt docker/apt-*.txt | cksum | cut -d' ' -f1)
stamp=.venv/set-up-$mode-$wanted
ffcv_stamp=.venv/set-up-ffcv-$wanted
ffcv_failed=.venv/failed-ffcv-$wanted
programs_failed=.venv/failed-programs-$wanted

[ -x .venv/bin/python ] || make_venv
if [ ! -f "$stamp" ]; then
    case $mode in dev) install_python_packages '[dev]' ;; *) install_python_packages '[deepspeed]' ;; esac
    touch "$stamp"
fi
[ -f "$ffcv_stamp" ] || install_ffcv
case $mode in dev) install_test_programs ;; esac
