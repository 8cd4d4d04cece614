#!/bin/sh
# Create the virtual environment: sh scripts/install.sh [cpu|cuda]
# Installs the pinned requirements, checks them, and writes a stamp. If the stamp is current, it does nothing and needs no network.
# Settings: PYTHON (python3), GRPO_VENV (.venv; its content is replaced), PIP_FLAGS (extra arguments of pip install).
set -eu
cd "$(dirname "$0")/.."

accelerator=${1:-cpu}
python=${PYTHON:-python3}
venv=${GRPO_VENV:-.venv}
pinned=requirements/$accelerator.txt
stamp=$venv/installed

fail() {
    echo "error: $*" >&2
    exit 1
}

[ -f "$pinned" ] || fail "unknown accelerator '$accelerator'; use cpu or cuda"
wanted="$accelerator $(cat "$pinned" requirements/dev.txt scripts/install.sh | cksum)"
if "$venv/bin/python" -c "" 2>/dev/null && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

command -v "$python" >/dev/null || fail "$python not found; set Python 3.11 or newer: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' ||
    fail "found $("$python" --version 2>&1), but 3.11 to 3.14 is required; set another: make PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot create virtual environments; install its venv package (on Debian and Ubuntu: python3-venv)"

echo "Installing $pinned into $venv (a few minutes, once) ..."
rm -f "$stamp"
"$python" -m venv --clear "$venv"
# PIP_USER or PIP_TARGET would install packages elsewhere; package indexes and proxies stay as configured.
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PIP_USER PIP_TARGET PIP_PREFIX
pip() { # --no-compile: Python compiles modules on first import; compiling all of them would double the time
    # shellcheck disable=SC2086  # PIP_FLAGS may be several words
    "$venv/bin/python" -m pip --disable-pip-version-check install --no-input --quiet --no-deps --no-compile ${PIP_FLAGS:-} "$@"
}
# Three small packages are source distributions. Build them with the pinned setuptools, so that nothing unpinned is downloaded.
pip "$(grep '^setuptools==' "$pinned")" || fail "pip could not install setuptools; see its message above"
pip --no-build-isolation --use-pep517 -r "$pinned" -r requirements/dev.txt || fail "pip could not install $pinned; see its message above"
"$venv/bin/python" scripts/check_environment.py "$accelerator" || fail "the new environment is not usable; see above"
# The first import compiles the packages and prints their SyntaxWarnings; do it here and not in the user's first run.
"$venv/bin/python" -W ignore -c '
import sys, types
sys.modules["pycosat"] = types.ModuleType("pycosat")  # omitted, see requirements; reasoning-gym imports it, but this project does not use it
import datasets, reasoning_gym, transformers' || fail "the new environment does not import; see above"
echo "$wanted" >"$stamp"
