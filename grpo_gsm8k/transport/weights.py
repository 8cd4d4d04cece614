"""Published weights: a folder with checksums and a canary, which appears complete or not at all.

`<root>/v<version>/` holds `model.safetensors`, or an adapter in peft's format, and `manifest.json`. The learner writes
it aside and renames it, the actor verifies it before touching the engine, and the orchestrator deletes it when no actor
may load it anymore. The memory of the last deleted model is used again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from grpo_gsm8k.errors import DiskFullError, IntegrityError, WeightsError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import rename, written_aside
from grpo_gsm8k.files.parsing import first_problem
from grpo_gsm8k.transport.protocol import WeightsRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODEL_FILE = "model.safetensors"
Kind = Literal["model", "adapter"]
_KIND: TypeAdapter[Kind] = TypeAdapter(Kind)
MARGIN_BYTES = 16 * 2**20  # left free for other users of the device


@dataclass(frozen=True, slots=True)
class Canary:
    """Token ids, and the learner's log-probabilities of all but the first at temperature 1."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


_CANARY = TypeAdapter(Canary)


@dataclass(frozen=True, slots=True)
class VerifiedWeights:
    """A weights folder whose checksums were verified within `seconds`."""

    ref: WeightsRef
    kind: Kind
    canary: Canary
    seconds: float

    @property
    def folder(self) -> Path:
        """The folder with the files."""
        return Path(self.ref.path)


def publish(
    root: Path,
    version: int,
    kind: Kind,
    size: int,
    write: Callable[[Path], Mapping[str, str]],
    canary: Canary,
    attempt: int = 0,
) -> WeightsRef:
    """Create `<root>/v<version>` of about `size` bytes, or `v<version>.<attempt>` in place of a damaged one.

    `write` writes the files into the folder that it is given, which may contain an old model file to be overwritten. It
    returns the digests that it already knows, by file name; files without one are read again to compute theirs.

    Raises WeightsError, and leaves nothing behind, if there is too little space. That is checked first: a process that
    maps a file of an overflowing tmpfs is killed with SIGBUS.
    """
    free = shutil.disk_usage(root).free + (_size(_spare(root)) if kind == "model" else 0)
    if free < size + MARGIN_BYTES:
        raise WeightsError(
            f"{root} has {free >> 20} MiB free, weights version {version} needs {(size + MARGIN_BYTES) >> 20} MiB: "
            "enlarge /dev/shm (docker run --shm-size) or free it"
        )
    final = root / (f"v{version}.{attempt}" if attempt else f"v{version}")
    canary_fields = {"token_ids": canary.token_ids, "logprobs": canary.logprobs}
    try:
        with written_aside(final, private=True, sole_writer=True) as aside:
            if kind == "model":
                with contextlib.suppress(FileNotFoundError):
                    rename(_spare(root), aside / MODEL_FILE)  # from now on no one else can reach it
            digests = write(aside)
            extra = {"version": version, "kind": kind, "canary": canary_fields}
            checksums.write_manifest(aside, extra, known=digests)
    except (OSError, DiskFullError) as error:
        raise WeightsError(f"weights version {version} could not be written to {root}: {error}") from error
    return WeightsRef(version, str(final))


def delete(ref: WeightsRef) -> None:
    """Delete a version that no actor may load anymore, but keep its model file as the spare for the next `publish`.

    To overwrite its memory takes half as long as to write into new memory (`make bench-publish`). It replaces an older
    spare, so a run has one at most.
    """
    folder = Path(ref.path)
    with contextlib.suppress(FileNotFoundError):  # an adapter has no such file
        os.replace(folder / MODEL_FILE, _spare(folder.parent))
    shutil.rmtree(folder, ignore_errors=True)


def discard(ref: WeightsRef) -> None:
    """Delete a damaged version, and give its memory back: the same memory may damage the next version, too."""
    shutil.rmtree(ref.path, ignore_errors=True)


def _spare(root: Path) -> Path:
    """Return the path of the spare: beside the folders of all learners of a run, which have it in common."""
    return root.parent / "spare"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def verify(ref: WeightsRef) -> VerifiedWeights:
    """Verify the checksums of a published folder before the engine is touched. Raises WeightsError."""
    started = time.monotonic()
    folder = Path(ref.path)
    try:
        manifest = checksums.verify(folder)
    except (IntegrityError, OSError) as error:
        raise WeightsError(f"weights version {ref.version}: {error}") from error
    if manifest.get("version") != ref.version:
        raise WeightsError(f"{folder} holds version {manifest.get('version')} instead of version {ref.version}")
    try:
        canary = _CANARY.validate_python(manifest.get("canary"))
        kind = _KIND.validate_python(manifest.get("kind"))
    except ValidationError as error:
        raise WeightsError(f"{folder}: its manifest was written by something else: {first_problem(error)}") from None
    return VerifiedWeights(ref, kind, canary, time.monotonic() - started)
