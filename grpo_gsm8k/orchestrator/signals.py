"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

# SIGHUP: the terminal was closed, or the SSH connection was lost.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
Handler = Callable[[int, FrameType | None], None]


def catch_signals(handler: Handler) -> dict[signal.Signals, Any]:
    """Have `handler` called for the signals of STOPPING; returns their handlers before.

    SIGHUP stays ignored under nohup; the others are caught even where a shell has them ignored, as for a job in the
    background. After a SIGHUP, output to the closed terminal goes nowhere, because writing to it fails.
    """
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and terminals:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for descriptor in terminals:
                os.dup2(nowhere, descriptor)
            os.close(nowhere)
        handler(number, frame)

    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {number: signal.signal(number, on_signal) for number in STOPPING if number != signal.SIGHUP or not nohup}


def restore_signals(before: dict[signal.Signals, Any]) -> None:
    """Set the handlers that `catch_signals` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)
