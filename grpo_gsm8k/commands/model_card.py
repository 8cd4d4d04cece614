"""Upload to the Hugging Face hub, with a model card that says what was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from grpo_gsm8k.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder


def upload(folder: Path, run: RunFolder, step: int, config: Config, repo_id: str, private: bool) -> str:
    """Create the repository where it is missing, upload `folder` and a model card; returns the address.

    The token is the client's own affair (HF_TOKEN or its login). Raises LabError with the hub's reason.
    """
    api = huggingface_hub.HfApi()
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            ignore_patterns=["README.md"],
            commit_message=f"Step {step} of {run.path.name}",
        )
        card = model_card(run, step, config).encode()
        api.upload_file(repo_id=repo_id, path_or_fileobj=card, path_in_repo="README.md", commit_message="Model card")
    except (HfHubHTTPError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LabError(f"push.repo_id={repo_id}: {reason}: check HF_TOKEN and that it may write there") from error
    return str(url)


def model_card(run: RunFolder, step: int, config: Config) -> str:
    """Front matter, how it was trained, and the run's validations as a table."""
    lines = run.metrics_jsonl.read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if "val/accuracy" in record]
    rows = [
        f"| {record['val/version']} | {100 * record['val/accuracy']:.1f} % "
        f"| {100 * record['val/accuracy_ci_low']:.1f} to {100 * record['val/accuracy_ci_high']:.1f} % "
        f"| {record['val/n']:.0f} |"
        for record in sorted(records, key=lambda record: record["val/version"])
    ]
    pg = config.policy_gradient
    return "\n".join(
        [
            "---",
            "library_name: peft" if (run.checkpoints / f"step_{step}/model/adapter_config.json").exists() else "",
            f"base_model: {config.model.path}" if "/" in config.model.path and ":" not in config.model.path else "",
            "---",
            f"# {run.path.name}, step {step}",
            "",
            f"Trained from `{config.model.path}` with `{pg.loss_type}` (advantage `{pg.advantage_name}`, "
            f"{pg.group_size} completions a prompt, {pg.episodes_per_update} an update) on `{config.data.folder}`.",
            "",
            "Greedy accuracy on the held-out validation problems, with 95 % bootstrap intervals:",
            "",
            "| updates | accuracy | interval | problems |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
