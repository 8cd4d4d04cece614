"""`command=push`: upload a checkpoint's model and a model card to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._validators import validate_repo_id

from grpo_gsm8k.commands.base_model import CARD, find_origin
from grpo_gsm8k.commands.finished_run import find_checkpoint
from grpo_gsm8k.commands.model_card import model_card
from grpo_gsm8k.commands.upload import Upload
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.hub_client import limit_waits
from grpo_gsm8k.start_model import ADAPTER_CONFIG
from grpo_gsm8k.tracking.redaction import redact

if TYPE_CHECKING:
    from grpo_gsm8k.commands.base_model import BaseOrigin
    from grpo_gsm8k.commands.upload import Form
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder

# Files that a loader would combine with ours if an earlier upload left them in the repository.
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", ADAPTER_CONFIG, "*.bin")
# Local folders of this machine in the configuration files of transformers and peft.
PATH_KEYS = ("_name_or_path", "name_or_path")
REFUSED = (401, 403)


def push_model(config: Config) -> int:
    """Upload what `push.what` selects. Raises UserError for a choice that the run does not have."""
    repo_id = _repo_id(config.push.repo_id)
    run, step, trained = find_checkpoint(config)
    origin = find_origin(run, trained)
    form, folder = _selected(config, run, step, origin)
    weights = [path for path in (folder, run.path / "merged" / f"step_{step}") if path.is_dir()]
    upload = Upload(
        repo_id=repo_id,
        run=run,
        step=step,
        trained=trained,
        form=form,
        folder=folder,
        origin=origin,
        artifacts=config.artifacts,
        weights=weights if form == "adapter" else [folder],
        license=config.push.license,
    )
    print(send(upload, model_card(upload), config.push.private))
    return 0


def _repo_id(given: str | None) -> str:
    if not given or given.count("/") != 1:
        raise UserError(f"push.repo_id={given}: command=push needs push.repo_id=OWNER/NAME")
    try:
        validate_repo_id(given)
    except ValueError as error:
        raise UserError(f"push.repo_id={given}: {error}") from None
    return given


def send(upload: Upload, card: str, private: bool) -> str:
    """Create the repository if it is missing and commit card and files together; returns the repository's URL.

    The Hub client finds the token itself (HF_TOKEN or its login). The Hub checks the card before any file is sent. An
    interrupted upload leaves no commit; repeated, it sends only the large files that the Hub does not have yet. Raises
    LabError with the Hub's reason.
    """
    limit_waits(commits=True)
    api, repo_id = huggingface_hub.HfApi(), upload.repo_id
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        found = api.model_info(repo_id)
        if found.private is not None and found.private != private:
            is_now = "private" if found.private else "public"
            raise UserError(f"push.repo_id={repo_id} is {is_now}: set push.private={str(found.private).lower()}")
        present = [sibling.rfilename for sibling in found.siblings or []]
        message = f"Update {upload.step} of {upload.run.path.name}"
        api.create_commit(repo_id, [*_files(upload, card), *_stale(upload, present)], commit_message=redact(message))
    except (HfHubHTTPError, httpx2.HTTPError, ValueError, OSError) as error:
        raise LabError(f"push.repo_id={repo_id}: {_reason(error)}") from error
    return str(url)


def _selected(config: Config, run: RunFolder, step: int, origin: BaseOrigin) -> tuple[Form, Path]:
    """Return the form and the folder to upload. Raises UserError."""
    what, model = config.push.what, run.checkpoints / f"step_{step}" / "model"
    merged = run.path / "merged" / f"step_{step}"
    if not (model / ADAPTER_CONFIG).is_file():
        if what != "auto":
            raise UserError(f"push.what={what}: run={config.run} was trained without an adapter: set push.what=auto")
        return "plain", model
    merge = f"python cli.py command=merge run={run.path.name} step={step} artifacts={config.artifacts}"
    if what == "merged" or (what == "auto" and merged.is_dir()):
        if not merged.is_dir():
            raise UserError(f"push.what=merged: {merged} is missing: first {merge}")
        if merged.stat().st_mtime < model.parent.stat().st_mtime:
            raise UserError(f"push.what={what}: {merged} is older than the checkpoint: delete it, then {merge}")
        return "merged", merged
    if origin.stages or not origin.public:
        raise UserError(
            f"push.what={what}: the adapter's base is not on the hub, so nobody could load it: push.what=merged, after "
            f"{merge}"
        )
    return "adapter", model


def _files(upload: Upload, card: str) -> list[CommitOperationAdd]:
    paths = sorted(p for p in upload.folder.iterdir() if p.is_file() and p.name != CARD and p.name[0] != ".")
    files = [CommitOperationAdd(path.name, _without_paths(path, upload.origin)) for path in paths]
    return [*files, CommitOperationAdd(CARD, card.encode())]


def _without_paths(path: Path, origin: BaseOrigin) -> Path | bytes:
    """Return a file's path, or the content of a configuration that named a local folder, without it."""
    if path.suffix != ".json" or not path.name.endswith("config.json"):
        return path
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in PATH_KEYS}
    if path.name == ADAPTER_CONFIG:
        kept |= {"base_model_name_or_path": origin.hub_id, "revision": origin.commit}
    return path if kept == values else (json.dumps(kept, indent=2) + "\n").encode()


def _stale(upload: Upload, present: list[str]) -> list[CommitOperationDelete]:
    ours = {path.name for path in upload.folder.iterdir()}
    old = [name for name in present if name not in ours and any(Path(name).match(kind) for kind in MODEL_FILES)]
    return [CommitOperationDelete(name) for name in old if "/" not in name]


def _reason(error: Exception) -> str:
    """Return the Hub's own words, and where the token is the cause, what to check."""
    text = str(error)
    status = None
    if isinstance(error, HfHubHTTPError):
        text, status = error.server_message or text, error.response.status_code
    reason = redact(" ".join(text.split()) or type(error).__name__)
    return f"{reason}: check HF_TOKEN and its write permission" if status in REFUSED else reason
