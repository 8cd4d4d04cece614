#!/bin/sh
# Makes the environment: sh scripts/install.sh [cpu|cuda]
# Installs the pinned list, checks it, and writes a stamp; with a fitting stamp it does nothing and needs no network.
# Settings: PYTHON (python3), GRPO_VENV (.venv; what is in it is replaced), PIP_FLAGS (more words for pip).
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

command -v "$python" >/dev/null || fail "$python not found; name your Python 3.11 or newer: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' ||
    fail "$("$python" --version 2>&1) found, but 3.11 to 3.14 is needed; name another: make PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make environments; install its venv package (on Debian and Ubuntu: python3-venv)"

echo "Installing $pinned into $venv (a few minutes, once) ..."
rm -f "$stamp"
"$python" -m venv --clear "$venv"
# A user's PIP_USER or PIP_TARGET would put packages somewhere else; package indexes and proxies stay as set.
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE PIP_USER PIP_TARGET PIP_PREFIX
pip() { # --no-compile: Python compiles what it imports at its first import; compiling everything would double the time
    # shellcheck disable=SC2086  # PIP_FLAGS is several words
    "$venv/bin/python" -m pip --disable-pip-version-check install --no-input --quiet --no-deps --no-compile ${PIP_FLAGS:-} "$@"
}
# Three small packages come as source; the pinned setuptools builds them, so that nothing unpinned is fetched.
pip "$(grep '^setuptools==' "$pinned")" || fail "pip could not install setuptools; its message is above"
pip --no-build-isolation --use-pep517 -r "$pinned" -r requirements/dev.txt || fail "pip could not install $pinned; its message is above"
"$venv/bin/python" scripts/check_environment.py "$accelerator" || fail "the new environment is not usable; see above"
# The first import compiles, and shows other people's SyntaxWarnings: here, not in the user's first run.
"$venv/bin/python" -W ignore -c '
import sys, types
sys.modules["pycosat"] = types.ModuleType("pycosat")  # left out, see requirements; reasoning-gym imports it but does not need it
import datasets, reasoning_gym, transformers' || fail "the new environment does not import; see above"
echo "$wanted" >"$stamp"
