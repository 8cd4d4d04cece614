# shellcheck shell=bash
# shellcheck disable=SC2154,SC2016 # variables of check.sh; apt's format is not a shell expansion
# Part of docker/check.sh: creates a base image with debootstrap and builds the images on it with buildah.

BASE=localhost/grpo-check-base
CANARIES=(canary-of-dotenv-file-5e1f canary-of-the-environment-77c2 canary-of-artifacts-a90b)

storage() { # storage COMMAND ...: buildah with all storage in $work
    local command=$1
    shift
    local policy=()
    case $command in
    build | commit | from) policy=(--signature-policy "$work/policy.json") ;;
    esac
    buildah --root "$work/storage" --runroot "$work/runroot" --storage-driver "$driver" "$command" "${policy[@]}" "$@"
}

choose_driver() { # overlay needs a suitable file system; vfs copies files and works everywhere
    echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
    driver=overlay
    buildah --root "$work/storage" --runroot "$work/runroot" --storage-driver overlay info >/dev/null 2>&1 || driver=vfs
}

make_base() {
    choose_driver
    if storage images "$BASE" >/dev/null 2>&1; then
        log "base: kept from an earlier run"
        return
    fi
    local line suite mirror components=main
    line=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v -- - | sed -n 1p)
    suite=${BASE_SUITE:-${line% *}} mirror=${BASE_MIRROR:-${line#* }}
    if grep -q '^ID=ubuntu' /etc/os-release; then components=main,universe; fi
    timeout 900 debootstrap --variant=minbase --components="$components" --include=ca-certificates,python3,python3-dev,python3-venv \
        "$suite" "$work/rootfs" "$mirror" >"$work/debootstrap.log" 2>&1 || fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
    rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb
    local container
    container=$(storage from scratch)
    storage copy --quiet "$container" "$work/rootfs" / >/dev/null
    storage config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    storage commit --quiet --rm "$container" "$BASE" >/dev/null
    rm -rf "$work/rootfs"
    log "base: $suite from debootstrap, $(size_of "$BASE") (storage: $driver)"
}

size_of() {
    storage images --format '{{.Size}}' "$1" | sed -n 1p
}

make_context() { # the files that `docker build .` would see, plus canaries that must not get into an image
    commit=$(git rev-parse HEAD)
    rm -rf "$work/context"
    mkdir -p "$work/context"
    git ls-files --cached --others --exclude-standard -z | tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
        tar --extract --directory="$work/context"
    echo "WANDB_API_KEY=${CANARIES[0]}" >"$work/context/.env"
    mkdir -p "$work/context/artifacts/runs"
    echo "${CANARIES[2]}" >"$work/context/artifacts/runs/notes"
}

pip_settings() { # this machine's pip settings as one file, and the volumes that it refers to
    python3 -m pip config list | python3 "$repository/docker/check/pip_settings.py" "$work/pip" >"$work/pip.volumes"
    mapfile -t volumes <"$work/pip.volumes"
}

make_image() { # make_image DOCKERFILE IMAGE
    make_context
    pip_settings
    local begun=$SECONDS arguments=()
    for volume in "${volumes[@]}"; do arguments+=(--volume "$volume"); done
    WANDB_API_KEY=${CANARIES[1]} DEEPSEEK_API_KEY=${CANARIES[1]} HF_TOKEN=${CANARIES[1]} timeout "${BUILD_SECONDS:-3600}" \
        buildah --root "$work/storage" --runroot "$work/runroot" --storage-driver "$driver" build \
        --signature-policy "$work/policy.json" --isolation chroot --format docker --pull=never --layers=false \
        --build-arg BASE_IMAGE="$BASE" --build-arg GIT_SHA="$commit" "${arguments[@]}" \
        --file "$1" --tag "$2" "$work/context" >"$work/build.log" 2>&1 ||
        fail "$1 does not build: $(tail -n 5 "$work/build.log")"
    log "$1: built in $((SECONDS - begun)) s, $(size_of "$2")"
}

setting() { # setting NAME: one setting of the image as lines: env, entrypoint, cmd, user, workdir, labels, healthcheck, volumes
    storage inspect --type image "$image" | python3 "$repository/docker/check/setting.py" "$1"
}

check_settings() { # no grep -q and no head after a pipe: they exit early, and the program before them fails with SIGPIPE
    [ "$(setting user)" = lab ] || fail "the image's user is $(setting user)"
    [ "$(setting entrypoint | sed -n 1p)" = tini ] || fail "PID 1 is not tini"
    setting healthcheck | grep healthcheck.sh >/dev/null || fail "the image has no health check"
    setting volumes | grep -x /app/artifacts >/dev/null || fail "artifacts are not on a volume"
    [ "$(setting labels | sed -n 's/^org.opencontainers.image.revision=//p')" = "$commit" ] || fail "no revision label"
    log "settings: user lab, tini, health check, volumes $(setting volumes | xargs), $(setting labels | grep -c opencontainers) OCI labels"
}

check_secrets() { # search files and settings of the image for canaries
    mount_image
    printf '%s\n' "${CANARIES[@]}" >"$work/canaries"
    local found
    found=$(grep -rlsF --file="$work/canaries" --exclude=image.sh "$root" | head -n 3) || true
    [ -z "$found" ] || fail "a canary is in $found"
    if storage inspect --type image "$image" | grep -F --file="$work/canaries"; then fail "a canary is in the image's settings"; fi
    if [ -s "$root/etc/pip.conf" ]; then fail "pip's settings got into the image"; fi
    if [ -e "$root/app/.env" ] || [ -e "$root/app/.git" ]; then fail ".env or .git got into the image"; fi
    log "secrets: none of ${#CANARIES[@]} canaries in files and settings of the image, no .env, no .git"
}
