"""Run a program as a child process that ends with this process, together with the children that it starts.

vLLM's server leaves its engine process behind when it is killed. So this module also runs as a guard between parent
and program, `python -m grpo_gsm8k.runtime.program PARENT COMMAND...`, which kills the process group when PARENT ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from grpo_gsm8k.children.own_python import module_command, with_package
from grpo_gsm8k.children.parent_death import die_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

EXIT_SECONDS = 15.0  # from SIGTERM to SIGKILL


def start_program(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in its own process group, under the guard; its output is appended to `log`."""
    launcher = [*module_command(__name__), str(os.getpid()), *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            launcher,
            env=with_package(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )


def end_program(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the process group, and SIGKILL to what is left after EXIT_SECONDS."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(EXIT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager that starts a program, and ends it at the end of the block."""
    process = start_program(command, environment, log)
    try:
        yield process
    finally:
        end_program(process)


def _guard(parent: int, command: Sequence[str]) -> int:
    """Run the command and return its exit code; kill the process group, children included, if the parent dies first."""
    signal.signal(signal.SIGHUP, lambda *_: os.killpg(0, signal.SIGKILL))
    for number in (signal.SIGTERM, signal.SIGINT):  # the command gets them too, and decides when to end
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the command would inherit
    die_with(parent, by=signal.SIGHUP)
    code = subprocess.Popen(command).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), sys.argv[2:]))
