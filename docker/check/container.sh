# shellcheck shell=bash
# shellcheck disable=SC2154,SC2016 # variables of check.sh; commands for the container's shell
# Part of docker/check.sh: runs the image as Docker would, in its own namespaces, and stops it.
# `buildah run --isolation chroot` has neither a process nor a network namespace. Here the image's entrypoint is PID 1, the network is
# a loopback device, /dev/shm has the size set in the compose file, and only $artifacts is mounted from this machine.

root="" container="" inside=""

mount_image() { # mount a container of the image as a folder
    [ -z "$root" ] || return 0
    container=$(storage from --pull=never "$image")
    root=$(storage mount "$container")
}

remove_mounts() {
    [ -z "$container" ] || storage rm "$container" >/dev/null 2>&1
    root="" container=""
}

stop_container() {
    [ -z "$inside" ] || kill -KILL "$inside" 2>/dev/null
    inside=""
}

# start USER LOG COMMAND...: start a container; sets $inside, the host's PID of its PID 1, and $outside, the process to wait for
start() {
    local user=$1 log=$2 folder identity=$1:$1
    shift 2
    folder=$(setting workdir) # not in the command below: the container must be the only child of the background process
    if [ "$user" = lab ]; then identity=$(awk -F: '$1 == "lab" { print $3 ":" $4 }' "$root/etc/passwd"); fi
    mapfile -t environment < <(setting env)
    mapfile -t entrypoint < <(setting entrypoint)
    ROOT=$root ARTIFACTS=$artifacts SHM_SIZE=${shm_size:-2g} unshare --net --pid --mount --ipc --uts --fork --kill-child --propagation private \
        bash "$repository/docker/check/enter.sh" "$identity" env --ignore-environment --chdir="$folder" \
        "${environment[@]}" "${extra_environment[@]}" "${entrypoint[@]}" "$@" >"$log" 2>&1 &
    outside=$!
    inside=""
    until [ -n "$inside" ] || ! kill -0 "$outside" 2>/dev/null; do
        inside=$(pgrep --parent "$outside" || true)
    done
}

wait_at_most() { # wait_at_most SECONDS: wait until the container has ended; fails on timeout
    timeout "$1" tail --pid="$outside" --follow /dev/null &
    wait "$!" # unlike a foreground command, wait can be interrupted
}

# run USER COMMAND...: run to the end, with the output in $work/out
run() {
    local user=$1 code=0
    shift
    start "$user" "$work/out" "$@"
    wait_at_most "${STEP_SECONDS:-600}" || stop_container
    wait "$outside" || code=$?
    inside=""
    [ "$code" = 0 ] || fail "$* ended with exit code $code: $(tail -n 5 "$work/out")"
}

extra_environment=()

make_artifacts() {
    mount_image
    artifacts=$work/artifacts
    rm -rf "$artifacts"
    install -d -m 1777 "$artifacts"
}

check_cpu() {
    make_artifacts
    check_users
    check_doctor
    check_demo
    check_sigterm
}

check_users() {
    run lab sh -c 'echo "$(id -u) $(cat /proc/1/comm) $(python -c "import getpass; print(getpass.getuser())")"'
    [ "$(tail -n 1 "$work/out")" = "1000 tini lab" ] || fail "user, PID 1 and name are: $(tail -n 1 "$work/out")"
    run 4321 sh -c 'touch artifacts/of_4321 "$HOME/file" "$XDG_CACHE_HOME/file" && python -c "import getpass; getpass.getuser()"; id -u'
    [ "$(tail -n 1 "$work/out")" = 4321 ] || fail "another user: $(tail -n 1 "$work/out")"
    extra_environment=(HOST_UID=4322 HOST_GID=4323)
    cp --archive "$root/etc/passwd" "$root/etc/group" "$work"
    chown root:root "$artifacts" && chmod 755 "$artifacts"
    run 0 sh -c 'touch artifacts/of_4322 && echo "$(id -u):$(id -g) $(id -un)"'
    [ "$(tail -n 1 "$work/out")" = "4322:4323 lab" ] || fail "root became $(tail -n 1 "$work/out")"
    extra_environment=()
    cp --archive "$work/passwd" "$work/group" "$root/etc"
    chmod 1777 "$artifacts"
    if shm_size=64m run lab true && ! grep -q "shm-size" "$work/out"; then fail "no warning about 64 MB of /dev/shm"; fi
    if run lab sh -c 'python -c "import socket; socket.create_connection((\"192.0.2.1\", 80), 3)" 2>/dev/null && echo network || true' &&
        grep -q network "$work/out"; then fail "there is a network"; fi
    run lab sh docker/healthcheck.sh
    log "users: 1000 (tini is PID 1), 4321 with --user, root switches to HOST_UID; warning about small /dev/shm; $(tail -n 1 "$work/out")"
}

check_doctor() {
    local begun=$SECONDS
    run lab python cli.py command=doctor preset=cpu_demo
    log "doctor: $(wc -l <"$work/out") lines in $((SECONDS - begun)) s, as user 1000 without a network"
}

check_demo() {
    local begun=$SECONDS
    run lab python cli.py command=policy_gradient preset=cpu_demo name=two_updates policy_gradient.updates=2
    local found
    found=$(newest_checkpoint two_updates)
    [ "$found" = step_2 ] || fail "the demo left checkpoint '$found'"
    log "demo of 2 updates: $((SECONDS - begun)) s, checkpoint $found, files of user $(stat --format %u "$artifacts"/runs/*_two_updates/checkpoints/step_2)"
}

check_sigterm() { # the image's default command, make demo: the signal must pass through tini, make and sh
    local begun=$SECONDS code=0 run_folder=""
    mapfile -t command < <(setting cmd)
    start lab "$work/out" "${command[@]}"
    until [ -n "$run_folder" ] && grep -qs '"step"' "$run_folder/metrics.jsonl"; do
        kill -0 "$outside" 2>/dev/null || fail "${command[*]} ended by itself: $(tail -n 5 "$work/out")"
        [ $((SECONDS - begun)) -lt "${STEP_SECONDS:-600}" ] || fail "no update within ${STEP_SECONDS:-600} s"
        sleep 0.5
        run_folder=$(find "$artifacts" -maxdepth 2 -path '*/runs/*_policy_gradient')
    done
    local stopped=$SECONDS
    kill -TERM "$inside"
    wait_at_most 300 || fail "SIGTERM did not end the container within 300 s"
    wait "$outside" || code=$?
    inside=""
    local found
    found=$(newest_checkpoint policy_gradient)
    if [ -z "$found" ] || [ "$code" = 0 ]; then fail "after SIGTERM: exit code $code, checkpoint '$found': $(tail -n 5 "$work/out")"; fi
    log "SIGTERM to '${command[*]}': ended after $((SECONDS - stopped)) s with exit code $code, checkpoint $found"
    begun=$SECONDS
    run lab python cli.py command=policy_gradient preset=cpu_demo policy_gradient.updates=$((${found#step_} + 1)) \
        policy_gradient.resume_from=latest
    log "resumed from $found: $(newest_checkpoint policy_gradient) after $((SECONDS - begun)) s"
}

newest_checkpoint() { # newest_checkpoint NAME: the newest complete checkpoint of the run
    find "$artifacts"/runs/*_"$1"/checkpoints -mindepth 2 -maxdepth 2 -name manifest.json -path '*/step_*' -printf '%h\n' 2>/dev/null |
        sed 's|.*/||' | sort --version-sort | tail -n 1 || true
}

check_cuda() { # everything that works without a GPU
    make_artifacts
    run lab sh -c 'python -c "import torch, vllm; print(torch.__version__, vllm.__version__)"'
    local versions
    versions=$(tail -n 1 "$work/out")
    grep -q -- "--gpus all" "$work/out" || fail "no warning that no GPU is visible"
    run lab sh -c 'cd /tmp && echo "#include <Python.h>" >a.c && gcc -shared -fPIC \
        -I"$(python -c "import sysconfig; print(sysconfig.get_path(\"include\"))")" a.c -o a.so && echo compiled' # as Triton does
    [ "$(tail -n 1 "$work/out")" = compiled ] || fail "gcc does not find Python's headers"
    extra_environment=(GRPO_VOLUME=/app/artifacts "GRPO_WHEN_DONE=echo afterwards")
    run lab /app/docker/runpod/start.sh command=data data=chain_sum
    extra_environment=()
    [ "$(tail -n 1 "$work/out")" = afterwards ] || fail "start.sh: $(tail -n 1 "$work/out")"
    log "CUDA image: torch and vLLM $versions, Triton's compiler works, start.sh runs a command; no GPU here to train on"
}
