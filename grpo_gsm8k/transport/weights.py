"""Published weights: a folder that appears whole or not at all, with checksums and a canary.

`<root>/v<version>/` holds `model.safetensors`, or an adapter in peft's format, and `manifest.json`. The learner writes
it aside and renames it; the actor verifies it before it touches the engine; the orchestrator deletes it when nothing
may load it any more.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.errors import IntegrityError, WeightsError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.transport.protocol import WeightsRef

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL_FILE = "model.safetensors"
Kind = Literal["model", "adapter"]
SPARE_BYTES = 16 * 2**20  # left free on the device for everybody else


@dataclass(frozen=True, slots=True)
class Canary:
    """Token ids and the learner's log-probability of each of them but the first, at temperature 1."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VerifiedWeights:
    """A weights folder whose every byte was checked. `digest` identifies the tensors."""

    folder: Path
    kind: Kind
    version: int
    digest: str
    canary: Canary


def publish(
    root: Path, version: int, kind: Kind, size: int, write: Callable[[Path], None], canary: Canary
) -> WeightsRef:
    """Make `<root>/v<version>` of about `size` bytes; `write` puts the files into the folder it is given.

    Raises WeightsError, and leaves nothing behind, when the device has no room: an mmapped tmpfs that overflows
    kills its reader with SIGBUS, so the space is checked before the first byte.
    """
    free = shutil.disk_usage(root).free
    if free < size + SPARE_BYTES:
        raise WeightsError(
            f"{root} has {free >> 20} MiB free, weights version {version} needs {(size + SPARE_BYTES) >> 20} MiB: "
            "enlarge /dev/shm (docker run --shm-size) or free it"
        )
    final = root / f"v{version}"
    canary_fields = {"token_ids": canary.token_ids, "logprobs": canary.logprobs}
    try:
        with written_aside(final, private=True, sole_writer=True) as aside:
            write(aside)
            checksums.write_manifest(aside, {"version": version, "kind": kind, "canary": canary_fields})
    except OSError as error:
        raise WeightsError(f"weights version {version} could not be written to {root}: {error}") from error
    return WeightsRef(version, str(final))


def verify(ref: WeightsRef) -> VerifiedWeights:
    """Check every byte of a published folder. Raises WeightsError; call it before the engine is touched."""
    folder = Path(ref.path)
    try:
        manifest = checksums.verify(folder)
    except IntegrityError as error:
        raise WeightsError(f"weights version {ref.version}: {error}") from error
    if manifest["version"] != ref.version:
        raise WeightsError(f"{folder} holds version {manifest['version']}, version {ref.version} was asked for")
    canary = manifest["canary"]
    return VerifiedWeights(
        folder=folder,
        kind=manifest["kind"],
        version=ref.version,
        digest=" ".join(entry["xxh3_128"] for _, entry in sorted(manifest["files"].items())),
        canary=Canary(tuple(canary["token_ids"]), tuple(canary["logprobs"])),
    )
