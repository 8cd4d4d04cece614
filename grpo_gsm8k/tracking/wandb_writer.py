"""Weights & Biases: a copy of a run's records, with histograms and tables of completions. Only this imports wandb."""

from __future__ import annotations

import contextlib
import netrc
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.tracking.completions import read_completions
from grpo_gsm8k.tracking.wandb_settings import wandb_mode
from grpo_gsm8k.tracking.writer_thread import CLOSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import CompletionTablesConfig, Config
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.tracking.wandb_settings import WandbSettings
    from grpo_gsm8k.tracking.writer_thread import Record

WANDB_INIT_SECONDS = 60.0
RUN_ID_FILE = "wandb_run_id"
DATA_DIR = "WANDB_DATA_DIR"  # where wandb copies the files of tables before it sends them
_DATA_FOLDER = "wandb/data"  # below the run folder


def check_wandb(config: Config) -> None:
    """Raise UserError if mode=online has no credentials; whether they are valid is not checked."""
    if wandb_mode(config) != "online" or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    for path in (Path(os.environ.get("NETRC") or "~/.netrc").expanduser(), Path("~/_netrc").expanduser()):
        try:
            if netrc.netrc(str(path)).authenticators(host):
                return
        except (OSError, netrc.NetrcParseError):  # missing or unreadable: no credentials in it
            continue
    key = "wandb.mode" if config.wandb.mode else "WANDB_MODE"
    raise UserError(f"{key}=online has no API key for {host}: set WANDB_API_KEY, or use wandb.mode=offline")


def wandb_run_id(run: RunFolder) -> str:
    """Return the id of the W&B run, the same after every resume; a new run takes it from WANDB_RUN_ID if set.

    Raises UserError if WANDB_RUN_ID is the id of another run.
    """
    file = run.path / RUN_ID_FILE
    known = file.read_text().strip() if file.exists() else ""
    given = os.environ.get("WANDB_RUN_ID") or ""
    others = [other.parent.name for other in run.path.parent.glob(f"*/{RUN_ID_FILE}") if other.parent != run.path]
    if not known and given and given in (_read(run.path.parent / other / RUN_ID_FILE) for other in others):
        raise UserError(f"WANDB_RUN_ID={given} is the W&B run of an earlier run: unset it, or resume that run")
    run_id = known or given or secrets.token_hex(4)
    write_atomically(file, run_id + "\n")
    return run_id


def _read(file: Path) -> str:
    return file.read_text().strip()


class WandbWriter:
    """Sender of records to W&B. An unreachable W&B becomes an offline run."""

    name = "wandb"
    label = "W&B"

    def __init__(
        self,
        folder: Path,
        settings: WandbSettings,
        tables: CompletionTablesConfig,
        run_id: str,
        run_config: dict[str, Any],
    ) -> None:
        """`folder` is the run folder; `run_config` must not contain secrets."""
        self.problem = ""
        self._folder = folder
        self._settings = settings
        self._tables = tables
        self._run_id = run_id
        self._run_config = run_config
        self._run: Any = None
        self._wandb: Any = None

    def open(self) -> None:
        """Start the W&B run."""
        os.environ.setdefault("WANDB_SILENT", "true")  # its messages would break the live display
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would upload stack traces
        if not _user_set_data_dir():
            os.environ[DATA_DIR] = str(self._folder / _DATA_FOLDER)  # its default, in HOME, may not be writable
        if self._settings.folder:
            Path(self._settings.folder).mkdir(parents=True, exist_ok=True)  # else wandb would use a temporary folder
        import wandb

        self._wandb = wandb
        try:
            self._run = self._init(self._settings.mode)
        except Exception as error:  # W&B raises anything: unreachable, unauthorized, timed out
            if self._settings.mode == "offline":
                raise
            where = self._settings.folder or self._folder
            self._note(
                f"W&B failed ({type(error).__name__}: {error}); writing an offline run instead: "
                f"upload it later with `wandb sync {where}/wandb/offline-run-*`"
            )
            _discard_service()  # it still uses the run id
            self._run = self._init("offline")

    def write(self, record: Record) -> None:
        """Send one record, with the distribution of its completions and at times a table of them."""
        if record.kind != "rollback":  # W&B cannot delete points
            self._run.log({**record.values, **self._media(record)})

    def finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Set the best validation in W&B's summary, and wait until all is sent."""
        for name, value in (summary.get("best_validation") or {}).items():
            if isinstance(value, int | float):
                self._run.summary[f"best_validation/{name}"] = value
        self._run.finish(exit_code=exit_code)

    def abandon(self) -> None:
        """Kill wandb's background process."""
        _discard_service()

    def _media(self, record: Record) -> dict[str, Any]:
        try:
            found = read_completions(record, self._tables)
        except (OSError, ValueError) as error:
            self._note(f"no W&B table of {record.kind} {record.updates}: {error}")
            return {}
        if found is None:
            return {}
        prefix = "val" if record.kind == "validation" else "rollout"
        media = {
            f"{prefix}/reward_histogram": self._wandb.Histogram(found.rewards),
            f"{prefix}/length_histogram": self._wandb.Histogram(found.lengths),
        }
        if found.rows:
            media[f"{prefix}/completions"] = self._wandb.Table(columns=found.columns, data=found.rows)
        return media

    def _init(self, mode: str) -> Any:
        given = self._settings
        run = self._wandb.init(
            mode=mode,
            dir=given.folder or str(self._folder),
            project=given.project,
            entity=given.entity,
            group=given.group,
            job_type=given.job_type,
            tags=given.tags,
            id=self._run_id,
            name=given.name or self._folder.name,
            config=self._run_config,
            resume="allow",
            settings=self._wandb.Settings(
                console="off",
                init_timeout=WANDB_INIT_SECONDS,
                finish_timeout=CLOSE_SECONDS * 0.75,
                finish_timeout_raises=True,
                disable_git=True,  # a remote's URL may contain a token
                disable_code=True,
                save_code=False,
                x_disable_meta=True,  # the metadata include the unredacted command line; system metrics are separate
                x_save_requirements=False,
            ),
        )
        _define_axes(run)
        return run

    def _note(self, problem: str) -> None:
        self.problem = self.problem or " ".join(problem.split())


def _define_axes(run: Any) -> None:
    """Give each group of metrics its axis, and the summary the best value instead of the last where one is better."""
    for axis, groups in (
        ("step", ("train", "rollout", "sync", "time", "learner")),
        ("val/version", ("val",)),
        ("regression/version", ("regression",)),
    ):
        run.define_metric(axis)
        for group in groups:
            run.define_metric(f"{group}/*", step_metric=axis)
    run.define_metric("val/accuracy", step_metric="val/version", summary="max,last")
    run.define_metric("train/reward_mean", step_metric="step", summary="max,last")


def _user_set_data_dir() -> bool:
    """Whether WANDB_DATA_DIR is the user's: an earlier run of this process may have set it to its own folder."""
    return not os.environ.get(DATA_DIR, _DATA_FOLDER).endswith(_DATA_FOLDER)


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
