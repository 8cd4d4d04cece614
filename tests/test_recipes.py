"""Recipes: every stage composes at both scales, the values are the seeds', and they really run on two cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import load_config
from grpo_gsm8k.commands.pipeline import run_pipeline
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.saved_config import recipes
from scripts.run_recipes import result_of
from tests.conftest import Cli

NAMES = [
    "dpo",
    "gemma2b_comparison",
    "qwen3b_ppo_qlora",
    "qwen_math_two_gpu",
    "rejection_sampling",
    "turkish_grpo_lora",
]


def composed(name: str, scale: str = "full", *overrides: str) -> Config:
    return load_config(["command=pipeline", f"recipe={name}", f"scale={scale}", *overrides])


def stages(name: str, scale: str, only: str = "command=") -> list[Config]:
    """The configurations that the pipeline's stages get whose arguments contain `only`."""
    arguments = [f"recipe={name}", f"scale={scale}"]
    chosen = [stage for stage in composed(name, scale).pipeline.stages if only in " ".join(stage)]
    return [load_config([*arguments, *stage]) for stage in chosen]


def test_all_are_there() -> None:
    assert recipes() == NAMES


@pytest.mark.parametrize("scale", ["full", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_it_composes(name: str, scale: str) -> None:
    assert values(composed(name, scale), "recipe", "scale") == [name, scale]


@pytest.mark.slow  # a composition takes a few tenths of a second
@pytest.mark.parametrize("name", NAMES)
def test_the_stages_of_both_scales_are_the_same_commands(name: str) -> None:
    full, cpu = (stages(name, scale) for scale in ("full", "cpu"))
    assert [stage.command for stage in full] == [stage.command for stage in cpu]
    assert [stage.name for stage in full] == [stage.name for stage in cpu]
    assert {(stage.recipe, stage.scale) for stage in full} == {(name, "full")}
    assert {(stage.recipe, stage.scale) for stage in cpu} == {(name, "cpu")}
    assert {stage.learner.device for stage in cpu} == {stage.actor.device for stage in cpu} == {"cpu"}


def values(config: Config, *keys: str) -> list[Any]:
    found: list[Any] = []
    for key in keys:
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        found.append(value)
    return found


def test_values_of_s0() -> None:
    config = composed("qwen3b_ppo_qlora")
    pg = config.policy_gradient
    assert values(config, "model.path", "learner.quantization", "learner.lr") == ["Qwen/Qwen2.5-3B", "nf4", 2e-5]
    assert values(config.learner, "lora.rank", "lora.alpha", "gradient_checkpointing") == [8, 16, True]
    assert (config.actor.max_model_len, config.learner.token_budget) == (384, 4 * 384)
    assert (pg.episodes_per_update / pg.minibatches, pg.epochs_per_batch, pg.updates) == (4 * 16, 2, 5000)
    assert (pg.save_every, pg.updates // pg.save_every, config.eval.limit) == (200, 25, 50)
    first = {"loss": 0.9439, "policy": -0.8574, "value": 3.6025}
    assert first["policy"] + pg.critic.value_coef * first["value"] == pytest.approx(first["loss"], abs=1e-4)


def test_values_of_s1_and_s2() -> None:
    fine_tuning, ppo = (stages("gemma2b_comparison", "full", f"name={name}")[0] for name in ("lora_socratic", "ppo"))
    assert values(fine_tuning, "data.name", "preprocess.folder") == ["socratic", "gsm8k_socratic_tokens"]
    assert values(fine_tuning.learner, "lora.enabled", "lora.rank", "lora.alpha", "optimizer") == [
        *(True, 16, 32),
        "adamw_8bit",
    ]
    assert fine_tuning.sft.lr * fine_tuning.learner.final_lr_fraction == pytest.approx(1e-6)
    pg = ppo.policy_gradient
    assert values(ppo, "learner.lr", "learner.lora.enabled") == [5e-7, False]
    assert (pg.model_id, pg.updates, pg.episodes_per_update) == ("run:full_main", 100, 512)
    assert (pg.episodes_per_update / pg.minibatches, pg.epochs_per_batch, pg.cliprange) == (32, 2, 0.2)
    assert (pg.kl.coef, pg.entropy_coef, pg.critic.value_coef) == (0.05, 0.01, 0.1)
    assert (pg.critic.lam, pg.critic.gamma) == (0.95, 0.99)


def test_values_of_s3() -> None:
    config = composed("qwen_math_two_gpu")
    trained = stages("qwen_math_two_gpu", "full", "command=policy_gradient")
    methods = [stage.policy_gradient.loss_type for stage in trained]
    assert methods == ["no_baseline", "reinforce_with_baseline", "grpo_clip"]
    assert values(config.traces, "model", "samples_per_prompt", "max_tokens") == ["deepseek-reasoner", 1, 2048]
    assert values(config.eval, "eval_suites", "shots", "lm_eval_shots") == ["all", 8, 4]
    assert len(config.eval.lm_eval_tasks) == 7
    assert (config.data.val_size, config.actor.device, config.learner.device) == (512, "cuda:0", "cuda:1")


def test_values_of_s4() -> None:
    config = composed("turkish_grpo_lora")
    pg = config.policy_gradient
    assert values(config.data, "train_size", "test_size") == [442, 100]
    assert values(config.learner.lora, "enabled", "rank", "alpha") == [True, 32, 32]
    assert len(config.learner.lora.targets) == 7
    assert (pg.group_size, pg.max_new_tokens, pg.rewards["correct"]) == (6, 1024, 2.0)
    assert (pg.epochs, pg.updates, pg.prompts_per_update) == (3, None, 1)
    assert values(config.prompt, "answer_format", "answer_tag", "locale") == ["tags", "cevap", "tr"]
    assert (pg.rewards["tag_count"] * 4 * 0.125, pg.tag_count.trailing_cost) == (0.5, 0.001)
    assert len(config.eval.temperatures) > 2


def test_the_command_line_has_the_last_word() -> None:
    given = ["learner.lr=1", "model=tiny", "policy_gradient.updates=7"]
    for scale in ("full", "cpu"):
        config = composed("qwen3b_ppo_qlora", scale, *given)
        assert (config.learner.lr, config.model.path, config.policy_gradient.updates) == (1, "embedded:tiny", 7)
    assert composed("qwen3b_ppo_qlora", "cpu", "model=smollm2_135m").model.path == "wheel:smollm2_135m"


def test_a_single_command_takes_a_recipe() -> None:
    config = load_config(["command=sft", "recipe=gemma2b_comparison", "scale=cpu"])
    assert (config.command, config.recipe, config.learner.optimizer) == ("sft", "gemma2b_comparison", "adamw_8bit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe=qwen"], f"recipe=qwen does not exist; recipes: {', '.join(NAMES)}"),
        (["recipe=qwen", "scale=cpu"], "recipe=qwen does not exist"),
        (["recipe=cpu/qwen3b_ppo_qlora"], "recipe=cpu/qwen3b_ppo_qlora does not exist"),
        (["recipe=qwen3b_ppo_qlora", "scale=gpu"], "scale=gpu does not exist: .*options: cpu, full"),
        (["scale=cpu"], "scale=cpu has no effect without a recipe"),
        (["recipe=null", "scale=cpu"], "scale=cpu has no effect without a recipe"),
    ],
)
def test_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(["command=pipeline", *arguments])


def test_without_a_recipe_nothing_is_set() -> None:
    config = load_config(["command=pipeline", "recipe=null"])
    assert (config.recipe, config.scale, config.policy_gradient.group_size) == (None, "full", 8)


def test_uploading_is_skipped_without_a_repository(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(["command=pipeline", "pipeline.stages=[['command=push','run=latest']]"])
    assert run_pipeline(config, ["command=pipeline"]) == 0
    assert "== skipped: push.repo_id is not set" in capsys.readouterr().out


def test_the_line_about_a_recipe(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("== report\nartifacts/reports/x/report.html: 4.9 MB, and report.md next to it\n== merge\n")
    assert result_of(log, 0) == "artifacts/reports/x/report.html"
    log.write_text("error: first\nTraceback\nerror: last\n")
    assert result_of(log, 2) == f"exit code 2: error: last (output: {log})"


# `make recipes` runs all of them; these two have every kind of stage but an API's teacher and lm-eval.
RUN = ("dpo", "turkish_grpo_lora")


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in RUN else pytest.mark.more) for name in NAMES])
def test_it_runs_on_two_cores(cli: Cli, name: str) -> None:
    done = cli.run("command=pipeline", f"recipe={name}", "scale=cpu")
    assert done.returncode == 0, done.stderr
    assert list((cli.artifacts / "reports").glob("*/report.html"))
    for run in cli.runs():
        saved = yaml.safe_load((run / "config.yaml").read_text())
        assert (saved["recipe"], saved["scale"]) == (name, "cpu")
        assert json.loads((run / "summary.json").read_text()).get("status", "done") == "done"
