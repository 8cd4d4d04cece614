#!/usr/bin/env bash
# Start command of a RunPod pod. What must outlive the pod is on the network volume: artifacts, caches, git's identity.
# The latest run of the name GRPO_RUN goes on where it was; without one, it begins.
#
#   start.sh [overrides of cli.py ...]     without any: GRPO_ARGS; without that: wait for somebody to log in
#
# GRPO_VOLUME, GRPO_RUN, GRPO_SAVE_EVERY, GRPO_SYNC_SECONDS, GRPO_WHEN_DONE: see .env.example and docs/runpod.md
set -euo pipefail

volume=${GRPO_VOLUME:-/workspace}
run_name=${GRPO_RUN:-pod}
save_every=${GRPO_SAVE_EVERY:-1}
sync_seconds=${GRPO_SYNC_SECONDS:-30}
when_done=${GRPO_WHEN_DONE:-sleep infinity}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() {
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
    export GIT_CONFIG_GLOBAL=$volume/dotfiles/gitconfig # `git config --global` writes there, too
    touch "$GIT_CONFIG_GLOBAL"
    git config --global user.email >/dev/null ||
        say "git has no identity yet: git config --global user.name NAME; git config --global user.email ADDRESS"
}

command_of() { # the value of command=... among the arguments
    for argument in "$@"; do
        case $argument in
        command=*) echo "${argument#command=}" ;;
        name=* | artifacts=*) fail "$argument: here GRPO_RUN names the run, and artifacts are in $volume/artifacts" ;;
        esac
    done
}

latest_run() { # run folders begin with the time, so the last name is the newest
    find "$volume/artifacts/runs" -mindepth 1 -maxdepth 1 -type d -name "????????-??????_$run_name" | sort | tail -n 1
}

is_done() { # a folder whose summary.json says so; one of a killed run is absent or says interrupted
    python - "$1/summary.json" <<'PYTHON'
import json, pathlib, sys
file = pathlib.Path(sys.argv[1])
sys.exit(not (file.is_file() and json.loads(file.read_text()).get("status") in ("done", "stopped early")))
PYTHON
}

keep_flushing() { # checkpoints are flushed as they are saved; this takes metrics, rollouts and logs to the volume
    while sleep "$sync_seconds" && kill -0 "$1" 2>/dev/null; do
        sync --file-system "$volume"
    done
}

run_to_the_end() { # as a child, so that something can follow; SIGTERM is passed on, and the exit code is the run's
    local code signalled=yes
    "$@" &
    local child=$!
    trap 'signalled=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
    keep_flushing "$child" >/dev/null 2>&1 &
    local flusher=$!
    while [ -n "$signalled" ]; do # a signal makes wait return before the child is done
        signalled="" code=0
        wait "$child" || code=$?
    done
    kill "$flusher" 2>/dev/null || true
    sync --file-system "$volume"
    return "$code"
}

finish() {
    say "$1; next: $when_done"
    exec bash -c "$when_done"
}

restore_from_volume
cd "$repository"
if [ $# = 0 ]; then
    read -r -a arguments <<<"${GRPO_ARGS:-}"
    set -- "${arguments[@]}"
fi
if [ $# = 0 ]; then
    finish "nothing to run: set GRPO_ARGS, or log in and start python cli.py ... artifacts=$volume/artifacts"
fi

command=$(command_of "$@")
case $command in
policy_gradient | sft) # a checkpoint after each update, because a spot pod gets five seconds, too few for a large one
    defaults=("name=$run_name" "artifacts=$volume/artifacts" "$command.save_every=$save_every")
    run=$(latest_run)
    if [ -n "$run" ] && is_done "$run"; then
        finish "$run is done; another GRPO_RUN begins another run"
    elif [ -n "$run" ]; then
        say "going on with $run"
        defaults+=("$command.resume_from=$run")
    fi
    ;;
*) defaults=("artifacts=$volume/artifacts") ;;
esac

say "python cli.py" "${defaults[@]}" "$@"
code=0
run_to_the_end python cli.py "${defaults[@]}" "$@" || code=$?
[ "$code" = 0 ] || exit "$code"
finish "done"
