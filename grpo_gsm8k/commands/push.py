"""`command=push`: upload a checkpoint's model and a model card to the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from grpo_gsm8k.commands.finished_run import find_checkpoint
from grpo_gsm8k.commands.model_card import model_card
from grpo_gsm8k.errors import LabError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config


def push_model(config: Config) -> int:
    """Upload the checkpoint's merged model if `command=merge` has written one, else its model as it is."""
    if config.push.repo_id is None:
        raise UserError("command=push needs push.repo_id=OWNER/NAME")
    run, step, trained = find_checkpoint(config)
    merged = run.path / "merged" / f"step_{step}"
    folder = merged if merged.is_dir() else run.checkpoints / f"step_{step}" / "model"
    message = f"Step {step} of {run.path.name}"
    print(upload(folder, config.push.repo_id, config.push.private, message, model_card(run, step, trained)))
    return 0


def upload(folder: Path, repo_id: str, private: bool, message: str, card: str) -> str:
    """Upload `folder` and the model card, creating the repository if it is missing; returns its URL.

    The Hub client finds the token itself (HF_TOKEN or its login). Raises LabError with the Hub's reason.
    """
    api = huggingface_hub.HfApi()
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=["README.md"], commit_message=message)
        api.upload_file(
            repo_id=repo_id, path_or_fileobj=card.encode(), path_in_repo="README.md", commit_message="Model card"
        )
    except (HfHubHTTPError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LabError(f"push.repo_id={repo_id}: {reason}: check HF_TOKEN and its write permission") from error
    return str(url)
