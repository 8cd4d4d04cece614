"""A program as a child that never outlives this process, however it ends, nor do the children that it starts.

`python -m grpo_gsm8k.runtime.program PARENT COMMAND...` stands between the two: vLLM's server leaves its engine
behind when it is killed, so somebody has to see the parent's end and kill the whole group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.parent_death import die_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXIT_SECONDS = 15.0
ROOT = Path(__file__).resolve().parents[2]


def start_program(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own; `log` takes what it prints."""
    launcher = [sys.executable, "-m", __name__, str(os.getpid()), *command]
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    with log.open("ab") as output:
        return subprocess.Popen(
            launcher,
            env={**environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )


def end_program(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, SIGKILL to what is left after a while."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(EXIT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`start_program` and, at the end of the block, `end_program`."""
    process = start_program(command, environment, log)
    try:
        yield process
    finally:
        end_program(process)


def _guard(parent: int, command: Sequence[str]) -> int:
    """Run the command until it ends; when the parent dies first, kill the group: a server's own children too."""
    signal.signal(signal.SIGHUP, lambda *_: os.killpg(0, signal.SIGKILL))
    for number in (signal.SIGTERM, signal.SIGINT):  # for the command, which gets them as one of the group
        signal.signal(number, lambda *_: None)  # not SIG_IGN: the command would inherit that
    die_with(parent, by=signal.SIGHUP)
    code = subprocess.Popen(command).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), sys.argv[2:]))
