"""The other ranks of the learner as seen by the first one, whose children they are."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.children.own_python import module_command, with_package
from grpo_gsm8k.children.parent_death import PARENT
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.aside import make_private_folder
from grpo_gsm8k.learner.dealing import Part
from grpo_gsm8k.learner.ranks import ALONE, RankError, Ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from grpo_gsm8k.learner.spec import LearnerSpec

MODULE = "grpo_gsm8k.learner.run_rank"
BYSTANDER = 3  # exit code of a rank that ends because another one failed
BLAME_SECONDS = 5.0  # from a failed exchange of tensors until all ranks have noticed
EXIT_SECONDS = 5.0
SETUP_SECONDS = 60.0  # for the first line, which a pipe holds before the process reads it
READ_BYTES = 1 << 16


def start_ranks(spec: LearnerSpec, checkpoint: Path | None) -> Ranks:
    """Start the other ranks, which load the model while this one does; `checkpoint` is the one to continue from."""
    learner = spec.config.learner
    count = len(learner.rank_devices)
    if count == 1:
        return ALONE
    folder = spec.weights_root / "ranks"
    make_private_folder(folder)
    setup = {
        "ranks": count,
        "config": spec.config.model_dump(mode="json"),
        "model_folder": str(spec.model_folder),
        "critic_folder": str(spec.critic_folder),
        "teacher_folder": None if spec.teacher_folder is None else str(spec.teacher_folder),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "folder": str(folder),
        "logs": str(spec.run_folder / "logs"),
    }
    processes = [RankProcess(rank, setup, spec.run_folder / "logs" / log_name(rank)) for rank in range(1, count)]
    link = FirstLink(processes, learner.start_timeout_s, learner.rank_timeout_s)
    return Ranks(Part(0, count, learner.shard == "full"), link, folder, learner.device)


def log_name(rank: int) -> str:
    """Return the name of the log of a rank other than the first, which writes to the learner's."""
    return f"learner.rank{rank}.log"


class RankProcess:
    """One child with its pipes; the kernel ends it with the thread that started it, the learner's."""

    def __init__(self, rank: int, setup: dict[str, Any], log: Path) -> None:
        """Start it; what it prints goes to `log`."""
        self.rank = rank
        self._log = log
        self._unread = b""
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._process = subprocess.Popen(
            module_command(MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=descriptor,
            env={**with_package(os.environ), PARENT: str(os.getpid())},
            bufsize=0,
        )
        os.close(descriptor)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self.send({"rank": rank, **setup}, SETUP_SECONDS)

    def send(self, value: Any, limit_s: float) -> None:
        """Send a value as a line of JSON. Raises RankError if the process has ended or does not read it."""
        assert self._process.stdin is not None
        line, deadline = json.dumps(value).encode() + b"\n", time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdin, selectors.EVENT_WRITE)
            while line:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._late(limit_s)
                try:
                    line = line[os.write(self._process.stdin.fileno(), line) :]
                except OSError:  # a broken pipe
                    raise self._ended() from None

    def receive(self, started: float, limit_s: float) -> Any:
        """Return the next value that the process sends.

        Raises RankError if it sends none within `limit_s` seconds after `started` (of the monotonic clock) or has
        ended, and what it raised, if that was an error that a restart cannot fix.
        """
        assert self._process.stdout is not None
        deadline = started + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._late(limit_s)
                received = os.read(self._process.stdout.fileno(), READ_BYTES)
                if not received:
                    raise self._ended()
                self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        value = json.loads(line)
        if isinstance(value, dict):
            raise (UserError if value["user_error"] else LabError)(f"rank {self.rank} of the learner: {value['error']}")
        return value

    def raise_last_words(self) -> None:
        """Raise what the ended process has sent as an error that a restart cannot fix, if it has sent one."""
        with contextlib.suppress(RankError):
            while True:
                self.receive(time.monotonic(), 0.0)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None if the process still runs after so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def close_input(self) -> None:
        """Let the process end once it waits for work."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # unsent bytes for a process that has ended
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once, even if it is stopped."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _late(self, limit_s: float) -> RankError:
        return RankError(f"rank {self.rank} of the learner is late by {limit_s:g} s")

    def _ended(self) -> RankError:
        code = self.wait(EXIT_SECONDS)
        text = "closed its pipe" if code is None else f"ended with exit code {code}"
        return RankError(f"rank {self.rank} of the learner {text}: see {self._log}")


class FirstLink:
    """The first rank's pipes to all others."""

    def __init__(self, processes: Sequence[RankProcess], start_limit_s: float, limit_s: float) -> None:
        """`limit_s` is how long this rank waits for another one, `start_limit_s` is that of the first time."""
        self.processes = processes
        self.limit_s = limit_s
        self._next_limit_s = start_limit_s
        self._failed = False

    def exchange(self, value: Any) -> list[Any]:
        """Collect the values of all ranks, and send all of them to each."""
        started, limit_s, self._next_limit_s = time.monotonic(), self._next_limit_s, self.limit_s
        with self._noted():
            others = [process.receive(started, limit_s) for process in self.processes]
            values = [value, *others]
            for process in self.processes:
                process.send(values, self.limit_s)
        return values

    def announce(self, work: dict[str, Any]) -> None:
        """Send work to all other ranks."""
        with self._noted():
            for process in self.processes:
                process.send(work, self.limit_s)

    def blame(self, error: RuntimeError) -> RankError:
        """Name the ranks that ended by themselves, or hang: those that noticed the failure end as bystanders."""
        self._failed = True
        deadline = time.monotonic() + BLAME_SECONDS
        for process in self.processes:
            code = process.wait(max(0.0, deadline - time.monotonic()))
            if code == 1:
                process.raise_last_words()
            if code != BYSTANDER:
                late = f"did not take part within {self.limit_s:g} s"
                text = late if code is None else f"ended with exit code {code}"
                return RankError(f"rank {process.rank} of the learner {text}")
        return RankError(f"the ranks of the learner could not exchange tensors: {error}")

    def close(self) -> None:
        """End all ranks: after a failure at once, otherwise they do so themselves."""
        for process in self.processes:
            process.close_input()
        for process in self.processes:
            if not self._failed:
                process.wait(EXIT_SECONDS)
            process.kill()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Take note of a failure in the block."""
        self._failed = True
        yield
        self._failed = False
