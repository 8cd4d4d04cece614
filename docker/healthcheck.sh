#!/bin/sh
# Healthy: shared memory, disk and GPUs are usable. Whether a run makes progress is not checked here: its supervisor replaces
# stuck workers, and otherwise ends the run with an exit code.
set -eu

SHM=${SHM:-/dev/shm}
ARTIFACTS=${ARTIFACTS:-/app/artifacts}
MIN_FREE_MB=${MIN_FREE_MB:-200}

unhealthy() {
    echo "unhealthy: $*"
    exit 1
}

free_mb() {
    df --output=avail --block-size=1M "$1" | tail -n 1 | tr -d ' '
}

for folder in "$SHM" "$ARTIFACTS"; do
    probe=$(mktemp "$folder/.health.XXXXXX" 2>/dev/null) || unhealthy "$folder cannot be written to"
    rm -f "$probe"
done
[ "$(free_mb "$ARTIFACTS")" -ge "$MIN_FREE_MB" ] || unhealthy "$ARTIFACTS has less than $MIN_FREE_MB MB left: no checkpoint will fit"
if [ "${ACCELERATOR:-cpu}" = cuda ] && [ -e /dev/nvidiactl ]; then
    nvidia-smi --list-gpus >/dev/null 2>&1 || unhealthy "the GPUs do not answer nvidia-smi: this host needs a restart"
fi
echo healthy
