#!/bin/sh
# Entrypoint of every container: warns about problems that a run would meet later, refuses a driver that no run can use,
# switches to the right user, execs the command.
#
#   MIN_SHM_MB           size of /dev/shm that the weights need (set by the image)
#   HOST_UID, HOST_GID   user to switch to if the container starts as root (default: the image's user; 0: stay root)
#   GRPO_VOLUME          a mounted folder that this user must be able to write to
set -eu

SHM=${SHM:-/dev/shm}
MIN_DRIVER=580 # of CUDA 13, as in grpo_gsm8k/preflight/checks.py

warn() {
    echo "warning: $*" >&2
}

check_shm() {
    megabytes=$(df --output=size --block-size=1M "$SHM" 2>/dev/null | tail -n 1 | tr -d ' ') || megabytes=0
    if [ "${megabytes:-0}" -lt "${MIN_SHM_MB:-0}" ]; then
        warn "/dev/shm has ${megabytes:-0} MB, too little for the weights that pass through it: start the container with" \
            "--shm-size=${MIN_SHM_MB}m or more (compose: shm_size), or use a smaller model"
    fi
}

check_driver() { # torch would fail much later, when its first tensor reaches a GPU
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
    case ${driver%%.*} in
    '' | *[!0-9]*) return ;;
    esac
    if [ "${driver%%.*}" -lt "$MIN_DRIVER" ]; then
        echo "error: the host's NVIDIA driver $driver is too old for CUDA 13, which needs $MIN_DRIVER or newer: update it, or rent another host" >&2
        exit 2
    fi
}

check_gpus() {
    if [ "${ACCELERATOR:-cpu}" != cuda ]; then
        return
    fi
    check_driver
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU') || true
    if [ "$gpus" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then # CUDA ignores the rest of the list after an unknown GPU
        chosen=$(echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | grep -c '[^ ]') || true
        if [ "$chosen" -eq 0 ]; then warn "CUDA_VISIBLE_DEVICES is empty and hides all $gpus GPUs: unset it, or list GPUs as in 0,1"; return; fi
        gpus=$((chosen < gpus ? chosen : gpus))
    fi
    case $gpus in
    0) warn "no GPU is visible: start with --gpus all, and check that the host has a driver and the NVIDIA Container Toolkit" ;;
    1) warn "one GPU is visible: use preset=one_gpu" ;;
    esac
}

drop_root() { # switch from root to the image's user or HOST_UID:HOST_GID, after giving it the folders that it writes to
    uid=${HOST_UID:-$(id -u lab)}
    gid=${HOST_GID:-$(id -g lab)}
    if [ "$uid" = 0 ]; then
        exec "$@"
    fi
    groupmod --non-unique --gid "$gid" lab
    sed -i "s/^lab:x:[0-9]*:[0-9]*:/lab:x:$uid:$gid:/" /etc/passwd # usermod would chown the whole home folder
    for folder in /home/lab /cache /cache/huggingface /app/artifacts ${GRPO_VOLUME:+"$GRPO_VOLUME"}; do
        chown "$uid:$gid" "$folder" 2>/dev/null || warn "cannot make user $uid the owner of $folder"
    done
    exec setpriv --reuid="$uid" --regid="$gid" --init-groups -- "$@"
}

check_shm
check_gpus
export HOME=/home/lab USER=lab LOGNAME=lab # torch needs a user name, and a user without an entry in /etc/passwd has none
if [ "$(id -u)" = 0 ]; then
    drop_root "$@"
fi
exec "$@"
