"""A child process that answers one request at a time, within limits of time and memory, and is replaced if it fails.

Requests and answers are JSON lines on pipes. `child_loop.serve` is the child's side.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psutil

from grpo_gsm8k.children.own_python import module_command, with_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ChildFailure = Literal["start", "time", "memory", "exit", "error"]
# Variables of a child that runs this project's own code: what Python needs to start, and no keys.
NEEDED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_POLL_SECONDS = 0.05
_READ_BYTES = 1 << 16
_EXIT_SECONDS = 5.0  # between the end of a child's pipe and its own


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one child: seconds of wall-clock and CPU time per request (None: not limited), and megabytes of data.

    A limit of CPU time gives the same verdict on a loaded machine; one of wall-clock time also ends a child that waits.
    Without `network` the child reaches no other machine, and no server on this one, where the kernel allows that.
    """

    wall_s: float
    memory_mb: int
    cpu_s: float | None = None
    start_s: float = 120.0
    network: bool = False


class ChildError(Exception):
    """A request that a child did not answer. `kind` tells why, `detail` is the exception's text for kind `error`."""

    def __init__(self, kind: ChildFailure, detail: str) -> None:
        super().__init__(detail)
        self.kind: ChildFailure = kind
        self.detail = detail


class LimitedChild:
    """One child process, started by the first call and again after every failure. Not thread-safe.

    The kernel ends the child with the thread that started it, so calls belong in threads that live as long as the child
    should.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], limits: Limits, environment: Mapping[str, str] | None = None
    ) -> None:
        """`module` is run as `python -m module arguments...` and calls `child_loop.serve`.

        `environment`: of the child; None: that of this process without anything but `NEEDED`.
        """
        self._environment = environment
        self._command = [*module_command(module), *arguments]
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    @property
    def pid(self) -> int | None:
        """Process id of the running child, or None."""
        return None if self._process is None else self._process.pid

    def call(self, request: Any) -> Any:
        """Return the child's answer to a request. Raises ChildError; the next call then starts another child."""
        try:
            process = self._process or self._start()
            self._send(process, request)
            reply = self._receive(process, self._limits.wall_s, self._limits.cpu_s)
        except ChildError:
            self.close()
            raise
        if "error" in reply:
            raise ChildError("error", reply["error"])
        return reply["value"]

    def close(self) -> None:
        """End the child at once. May be called from another thread, whose waiting call then fails."""
        process, self._process, self._unread = self._process, None, b""
        if process is not None:
            if process.returncode is None:  # not waited for, so its id is still its own, even if it has ended
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # unsent bytes for a child that has ended
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = self._environment
        if environment is None:
            environment = {name: value for name, value in os.environ.items() if name in NEEDED}
        process = self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**with_package(environment), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        try:
            limits = {"memory_mb": self._limits.memory_mb, "network": self._limits.network}
            self._send(process, {**limits, "parent": os.getpid()})
            reply = self._receive(process, self._limits.start_s, None)
        except ChildError as error:
            raise ChildError("start", error.detail) from None
        if "error" in reply:
            raise ChildError("start", reply["error"])
        return process

    def _send(self, process: subprocess.Popen[bytes], message: Any) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError:  # a broken pipe: the child has ended
            raise ChildError("exit", _ending(process)) from None

    def _receive(self, process: subprocess.Popen[bytes], wall_s: float, cpu_s: float | None) -> dict[str, Any]:
        assert process.stdout is not None
        started, cpu_before = time.monotonic(), _cpu_seconds(process.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if time.monotonic() - started > wall_s:
                    raise ChildError("time", f"no answer within {wall_s:g} s")
                if cpu_s is not None and _cpu_seconds(process.pid) - cpu_before > cpu_s:
                    raise ChildError("time", f"no answer within {cpu_s:g} s of CPU time")
                if selector.select(_POLL_SECONDS):
                    received = os.read(process.stdout.fileno(), _READ_BYTES)
                    if not received:
                        raise ChildError("exit", _ending(process))
                    self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if reply.get("out_of_memory"):
            raise ChildError("memory", f"more than {self._limits.memory_mb} MB of memory")
        return reply


def _ending(process: subprocess.Popen[bytes]) -> str:
    """Return how the process ended, without reaping it: `close` still has to end the processes that it started."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    deadline = time.monotonic() + _EXIT_SECONDS
    try:
        while (ended := os.waitid(os.P_PID, process.pid, options)) is None:
            if time.monotonic() > deadline:
                return "the process closed its pipe"
            time.sleep(_POLL_SECONDS)
    except ChildProcessError:  # reaped by `close` in another thread
        return "the process was ended"
    code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return f"the process ended with exit code {code}"


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:  # it has ended: reading its pipe tells how
        return 0.0
    return float(times.user + times.system)
