"""Weights & Biases: a copy of a run's records, sent by a separate thread. Only this module imports wandb.

No failure of W&B stops or slows a run.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import queue
import secrets
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import psutil

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically

if TYPE_CHECKING:
    from grpo_gsm8k.config import WandbConfig
    from grpo_gsm8k.tracking.run_folder import RunFolder

WANDB_QUEUE = 2048  # records: hours of updates at one per 10 s
WANDB_INIT_SECONDS = 60.0
WANDB_CLOSE_SECONDS = 20.0
_END: Final[dict[str, Any]] = {}


def check_wandb(config: WandbConfig) -> None:
    """Raise UserError if mode=online has no credentials; whether they are valid is not checked."""
    if config.mode != "online" or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    for path in (Path(os.environ.get("NETRC") or "~/.netrc").expanduser(), Path("~/_netrc").expanduser()):
        try:
            if netrc.netrc(str(path)).authenticators(host):
                return
        except (OSError, netrc.NetrcParseError):  # missing or unreadable: no credentials in it
            continue
    raise UserError(f"wandb.mode=online has no API key for {host}: set WANDB_API_KEY, or use wandb.mode=offline")


def wandb_run_id(run: RunFolder, config: WandbConfig, resume_id: str | None) -> str | None:
    """Return the id of the W&B run, the same after every resume; None if W&B is off."""
    if config.mode == "off":
        return None
    file = run.path / "wandb_run_id"
    run_id = resume_id or (file.read_text().strip() if file.exists() else "") or secrets.token_hex(4)
    write_atomically(file, run_id + "\n")
    return run_id


class WandbWriter:
    """Sender of records to W&B on a daemon thread. Only `close` waits for W&B, for a limited time."""

    def __init__(self, folder: Path, config: WandbConfig, run_id: str, run_config: dict[str, Any]) -> None:
        """Start the thread. `run_config` must not contain secrets."""
        self.problem = ""  # first failure; written by the thread, read by callers
        self.dropped = 0
        self._folder = folder
        self._config = config
        self._run_id = run_id
        self._run_config = run_config
        self._exit_code = 0
        self._finished = False
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(WANDB_QUEUE)
        self._thread = threading.Thread(target=self._write_all, name="wandb-writer", daemon=True)
        self._thread.start()

    def put(self, record: dict[str, Any]) -> None:
        """Queue one record, or count it as dropped if the queue is full or the thread has ended."""
        try:
            if not self._thread.is_alive():
                raise queue.Full
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self, exit_code: int, seconds: float) -> None:
        """Send all queued records and finish the W&B run within `seconds`, else kill its background process."""
        self._exit_code = exit_code
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):  # the thread hangs or has ended; handled after the join
            self._queue.put(_END, timeout=seconds if self._thread.is_alive() else 0.01)
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._fail(f"W&B did not finish within {seconds:.0f} s")
        if not self._finished:
            self.dropped += self._queue.qsize() - self._queue.queue.count(_END)
            _discard_service()

    def _write_all(self) -> None:
        try:
            run = self._start()
            while (record := self._queue.get()) is not _END:
                run.log(record)
            run.finish(exit_code=self._exit_code)
            self._finished = True
        except Exception as error:  # noqa: BLE001 W&B raises anything; training continues and the tracker reports it
            self._fail(f"W&B stopped: {type(error).__name__}: {error}")

    def _start(self) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")  # its messages would break the live display
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would upload stack traces
        import wandb

        try:
            return self._init(wandb, self._config.mode)
        except Exception as error:  # W&B raises anything: unreachable, unauthorized, timed out
            if self._config.mode == "offline":
                raise
            self._fail(
                f"W&B failed ({type(error).__name__}: {error}); writing an offline run instead: "
                f"upload it later with `wandb sync {self._folder}/wandb/offline-run-*`"
            )
            _discard_service()  # it still uses the run id
            return self._init(wandb, "offline")

    def _init(self, wandb: Any, mode: str) -> Any:
        settings = wandb.Settings(
            console="off",
            init_timeout=WANDB_INIT_SECONDS,
            finish_timeout=WANDB_CLOSE_SECONDS * 0.75,
            finish_timeout_raises=True,
            disable_git=True,  # a remote's URL may contain a token
            disable_code=True,
            save_code=False,
            x_disable_meta=True,  # the metadata include the unredacted command line
            x_save_requirements=False,
        )
        run = wandb.init(
            mode=mode,
            dir=str(self._folder),
            project=self._config.project,
            entity=self._config.entity,
            id=self._run_id,
            name=self._folder.name,
            config=self._run_config,
            resume="allow",
            settings=settings,
        )
        for axis, groups in (
            ("step", ("train", "rollout", "sync", "time", "learner")),
            ("val/version", ("val",)),
            ("regression/version", ("regression",)),
        ):
            run.define_metric(axis)
            for group in groups:
                run.define_metric(f"{group}/*", step_metric=axis)
        return run

    def _fail(self, problem: str) -> None:
        self.problem = self.problem or " ".join(problem.split())


def _discard_service() -> None:
    """Kill the wandb-core child process, and remove wandb's exit hook, which would wait for it."""
    killed: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name().startswith("wandb-core"):
                killed += [*child.children(recursive=True), child]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(killed, timeout=2)
    if "wandb" in sys.modules:
        with contextlib.suppress(Exception, SystemExit):  # it fails because wandb-core was killed above
            sys.modules["wandb"].teardown()
