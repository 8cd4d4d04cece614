#!/usr/bin/env bash
# Start command of a RunPod pod. Artifacts, caches and git's identity are on the network volume and survive the pod.
# Resumes the latest run named GRPO_RUN, or starts one.
#
#   start.sh [overrides of cli.py ...]     default: GRPO_ARGS; without that: wait for a login
#
# GRPO_VOLUME, GRPO_RUN, GRPO_SAVE_EVERY, GRPO_SYNC_SECONDS, GRPO_WHEN_DONE: see .env.example and docs/runpod.md
set -euo pipefail

volume=${GRPO_VOLUME:-/workspace}
run_name=${GRPO_RUN:-pod}
save_every=${GRPO_SAVE_EVERY:-1}
sync_seconds=${GRPO_SYNC_SECONDS:-30}
when_done=${GRPO_WHEN_DONE:-sleep infinity}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

log() {
    echo "start.sh: $*"
}

fail() {
    echo "error: $*" >&2
    exit 2
}

restore_from_volume() {
    if ! mkdir -p "$volume/artifacts/runs" "$volume/cache/huggingface" "$volume/dotfiles" || [ ! -w "$volume/artifacts" ]; then
        fail "user $(id -u) cannot write to $volume: mount the network volume there, or set GRPO_VOLUME; if it belongs to" \
            "root, use an image built with --build-arg START_USER=root"
    fi
    export XDG_CACHE_HOME=$volume/cache HF_HOME=$volume/cache/huggingface
    export GIT_CONFIG_GLOBAL=$volume/dotfiles/gitconfig # also where `git config --global` writes
    touch "$GIT_CONFIG_GLOBAL"
    git config --global user.email >/dev/null ||
        log "git has no identity yet: git config --global user.name NAME; git config --global user.email ADDRESS"
}

command_of() { # print the value of command=... in the arguments
    for argument in "$@"; do
        case $argument in
        command=*) echo "${argument#command=}" ;;
        name=* | artifacts=*) fail "$argument cannot be set here: GRPO_RUN names the run, and artifacts are in $volume/artifacts" ;;
        esac
    done
}

latest_run() { # print the newest run folder of this name: folder names start with the time
    find "$volume/artifacts/runs" -mindepth 1 -maxdepth 1 -type d -name "????????-??????_$run_name" | sort | tail -n 1
}

is_done() { # whether the run has finished, according to its summary.json; a killed run has none, or status interrupted
    python - "$1/summary.json" <<'PYTHON'
import json, pathlib, sys
file = pathlib.Path(sys.argv[1])
sys.exit(not (file.is_file() and json.loads(file.read_text()).get("status") in ("done", "stopped early")))
PYTHON
}

keep_flushing() { # flush metrics, rollouts and logs to the volume; checkpoints are flushed when they are saved
    while sleep "$sync_seconds" && kill -0 "$1" 2>/dev/null; do
        sync --file-system "$volume"
    done
}

run_to_the_end() { # run as a child, so that a command can follow; forwards SIGTERM and returns the run's exit code
    local code signaled=yes
    "$@" &
    local child=$!
    trap 'signaled=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
    keep_flushing "$child" >/dev/null 2>&1 &
    local flusher=$!
    while [ -n "$signaled" ]; do # a signal makes wait return before the child has ended
        signaled="" code=0
        wait "$child" || code=$?
    done
    kill "$flusher" 2>/dev/null || true
    sync --file-system "$volume"
    return "$code"
}

finish() {
    log "$1; next: $when_done"
    exec bash -c "$when_done"
}

restore_from_volume
cd "$repository"
if [ $# = 0 ]; then
    read -r -a arguments <<<"${GRPO_ARGS:-}"
    set -- "${arguments[@]}"
fi
if [ $# = 0 ]; then
    finish "nothing to run: set GRPO_ARGS, or log in and run python cli.py ... artifacts=$volume/artifacts"
fi

command=$(command_of "$@")
case $command in
policy_gradient | sft) # save every update by default: a spot pod gets five seconds' notice, too few to save a large checkpoint
    defaults=("name=$run_name" "artifacts=$volume/artifacts" "$command.save_every=$save_every")
    run=$(latest_run)
    if [ -n "$run" ] && is_done "$run"; then
        finish "$run is done; set another GRPO_RUN to start another run"
    elif [ -n "$run" ]; then
        log "resuming $run"
        defaults+=("$command.resume_from=$run")
    fi
    ;;
*) defaults=("artifacts=$volume/artifacts") ;;
esac

log "python cli.py" "${defaults[@]}" "$@"
code=0
run_to_the_end python cli.py "${defaults[@]}" "$@" || code=$?
[ "$code" = 0 ] || exit "$code"
finish "done"
