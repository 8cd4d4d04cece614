"""The model card of an uploaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.files.json_lines import read_lines

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder


def model_card(run: RunFolder, step: int, config: Config) -> str:
    """Return front matter, training method, and the run's validations as a table, in Markdown."""
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
            *_validation_rows(run),
            "",
        ]
    )


def _validation_rows(run: RunFolder) -> list[str]:
    records = [record for record in read_lines(run.metrics_jsonl) if "val/accuracy" in record]
    return [
        f"| {record['val/version']} | {100 * record['val/accuracy']:.1f} % "
        f"| {100 * record['val/accuracy_ci_low']:.1f} to {100 * record['val/accuracy_ci_high']:.1f} % "
        f"| {record['val/n']:.0f} |"
        for record in sorted(records, key=lambda record: record["val/version"])
    ]
