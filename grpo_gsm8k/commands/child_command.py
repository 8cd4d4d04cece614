"""A command in its own process: a stage of a pipeline, a job of a sweep, or a call from Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.children.own_python import module_command, with_package
from grpo_gsm8k.terminal.program_name import VARIABLE, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENTRY = "grpo_gsm8k.command_line.job"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    `error` is the line that it gave as the reason, `runs` the folders that it wrote, and `interrupted` whether this
    process got a signal while the command ran; it may have ended well nevertheless.
    """

    code: int
    runs: tuple[Path, ...]
    error: str | None
    interrupted: signal.Signals | None


def run_command(words: Sequence[str]) -> CommandResult:
    """Run a command with these arguments to its end; signals are forwarded, so that it can save a checkpoint."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as answer:
        try:
            # In its own process group: Ctrl-C would otherwise reach it twice, which means "stop without saving".
            process = subprocess.Popen(
                [*module_command(ENTRY), str(os.getpid()), str(writer), *words],
                env={**with_package(os.environ), VARIABLE: program()},
                pass_fds=[writer],
                process_group=0,
            )
        finally:
            os.close(writer)
        with _forwarded_signals(process) as signals:
            text = answer.read()  # to its end, so the process cannot block on a full pipe
            code = process.wait()
    found = json.loads(text) if text else {"runs": [], "error": None}
    return CommandResult(
        code=code if code >= 0 else 128 - code,
        runs=tuple(Path(run) for run in found["runs"]),
        error=found["error"],
        interrupted=signals[0] if signals else None,
    )


@contextmanager
def _forwarded_signals(process: subprocess.Popen[bytes]) -> Iterator[list[signal.Signals]]:
    """Context manager that sends the process the signals that this one gets; yields the list of them."""
    got: list[signal.Signals] = []

    def forward(number: int, _: object) -> None:
        got.append(signal.Signals(number))
        process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield got
        return
    handlers = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield got
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
