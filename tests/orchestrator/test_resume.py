"""Resuming: the run's settings stay, explicit ones change and are recorded, what alters the meaning is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from cli import load_config, main
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.locks import try_lock
from grpo_gsm8k.orchestrator import resume
from grpo_gsm8k.start_model import pin_model
from grpo_gsm8k.tracking import manifest, run_folder, saved_config
from grpo_gsm8k.tracking.run_folder import RunFolder
from tests.conftest import Cli, read_jsonl

BASELINE = ("preset=cpu_demo", "policy_gradient=reinforce_baseline", "learner.lr=2e-6", "name=my_run")


def made_run(artifacts: Path, command: str, *arguments: str, step: int = 1) -> RunFolder:
    """A run folder with the settings of `arguments` and a checkpoint, as far as a lookup reads it."""
    words = [f"command={command}", *arguments, f"artifacts={artifacts}"]
    values = load_config(words).model_dump(mode="json")
    run = run_folder.create(artifacts, values["name"])
    manifest.write_config(run, values)
    run.manifest.write_text(json.dumps({"command_line": ["cli.py", *words]}))
    (run.checkpoints / f"step_{step}").mkdir()
    (run.checkpoints / f"step_{step}" / "manifest.json").write_text("{}")
    return run


def resumed(artifacts: Path, *arguments: str, command: str = "policy_gradient") -> Config:
    if not any(word.startswith(f"{command}.resume_from=") for word in arguments):
        arguments = (f"{command}.resume_from=latest", *arguments)
    return load_config([f"command={command}", f"artifacts={artifacts}", *arguments])


def changes(config: Config) -> dict[str, tuple[object, object]]:
    with resume.reopened(config) as found:
        return {change.key: (change.old, change.new) for change in found.changes}


@pytest.mark.parametrize("given", [(), ("preset=cpu_demo",), BASELINE[:2], BASELINE])
def test_the_run_keeps_its_settings(tmp_path: Path, given: tuple[str, ...]) -> None:
    made_run(tmp_path, "policy_gradient", *BASELINE)
    config = resumed(tmp_path, *given)
    assert config.policy_gradient.loss_type == "reinforce_with_baseline"
    assert (config.learner.lr, config.data.source, config.actor.device) == (2e-6, "reasoning_gym", "cpu")
    assert changes(config) == {}


ALLOWED = [
    ("policy_gradient.updates=7", "policy_gradient.updates", 30, 7),
    ("learner.lr=4e-4", "learner.lr", 2e-6, 4e-4),  # the default of the preset, but given
    ("policy_gradient.kl.coef=0.1", "policy_gradient.kl.coef", 0.0, 0.1),
    ("policy_gradient.rewards={correct:1}", "policy_gradient.rewards", {"correct": 0.9, "format": 0.1}, {"correct": 1}),
    ("policy_gradient.rewards.correct=1", "policy_gradient.rewards", None, {"correct": 1, "format": 0.1}),
    ("policy_gradient.temperature=0.9", "policy_gradient.temperature", 1.0, 0.9),
    ("wandb.mode=off", "wandb.mode", None, "off"),
    ("actor.threads=3", "actor.threads", 1, 3),
    ("budget.max_hours=2", "budget.max_hours", None, 2),
    ("name=other", "name", "my_run", "other"),
    ("learner.dtype=bfloat16", "learner.dtype", "float32", "bfloat16"),
]


def quick_and_slow(cases: list[tuple[object, ...]], quick: int) -> list[object]:
    """The first cases as they are and the others as slow ones: each composes the configuration several times."""
    return [*cases[:quick], *(pytest.param(*case, marks=pytest.mark.slow) for case in cases[quick:])]


@pytest.mark.parametrize(("argument", "key", "old", "new"), quick_and_slow(ALLOWED, 4), ids=lambda value: str(value))
def test_what_is_given_explicitly_changes(tmp_path: Path, argument: str, key: str, old: object, new: object) -> None:
    made_run(tmp_path, "policy_gradient", *BASELINE, "wandb.mode=offline")
    found = changes(resumed(tmp_path, argument))
    assert list(found) == [key]
    assert found[key][1] == new
    assert old is None or found[key][0] == old


REFUSED = [
    ("policy_gradient", "seed=3", "seed was 0, now 3"),
    ("policy_gradient", "policy_gradient.group_size=4", "policy_gradient.group_size was 8, now 4"),
    (
        "policy_gradient",
        "policy_gradient.episodes_per_update=64",
        "episodes_per_update was 256, now 64",
    ),
    ("policy_gradient", "policy_gradient=grpo", 'loss_type was "reinforce_with_baseline", now "grpo_clip"'),
    ("policy_gradient", "policy_gradient=ppo", 'policy_gradient.critic.kind was "none", now "'),
    ("policy_gradient", "policy_gradient.advantage=leave_one_out", 'advantage was null, now "leave_one_out"'),
    ("policy_gradient", "policy_gradient.reduction=token_mean", 'reduction was "sequence_mean", now "token_mean"'),
    ("policy_gradient", "policy_gradient.loss_type=cispo", 'loss_type was "reinforce_with_baseline", now "cispo"'),
    ("policy_gradient", "learner=lora", "learner.lora.enabled was false, now true"),
    ("policy_gradient", "learner.optimizer=adamw_8bit", 'learner.optimizer was "adamw", now "adamw_8bit"'),
    ("policy_gradient", "model=smollm2_135m", 'model.path was "embedded:tiny", now "wheel:smollm2_135m"'),
    ("policy_gradient", "policy_gradient.model_id=some/model", 'model.path was "embedded:tiny", now "some/model"'),
    ("policy_gradient", "data.seed=4", "data.seed was 0, now 4"),
    ("policy_gradient", "data.params.max_terms=5", "data.params was {"),
    ("policy_gradient", "prompt.text='{question} ='", "prompt.text was"),
    ("policy_gradient", "preset=cpu_smollm2", 'data.source was "reasoning_gym", now "hub"'),
    ("sft", "sft.min_tokens_per_update=64", "sft.min_tokens_per_update was 512, now 64"),
    ("sft", "preprocess.calculator=true", "preprocess.calculator was false, now true"),
    ("sft", "learner.lora.rank=4", "learner.lora.rank was 16, now 4"),
]


@pytest.mark.parametrize(("command", "argument", "needle"), quick_and_slow(REFUSED, 4), ids=lambda value: str(value))
def test_what_alters_the_meaning_of_a_checkpoint_is_refused(
    tmp_path: Path, command: str, argument: str, needle: str
) -> None:
    run = made_run(tmp_path, command, *BASELINE)
    before = run.config_yaml.read_bytes()
    config = pin_model(resumed(tmp_path, argument, command=command))
    with pytest.raises(UserError, match="resume_force=true") as error:
        changes(config)
    assert needle in str(error.value)
    assert "\n" not in str(error.value)
    assert run.config_yaml.read_bytes() == before
    forced = pin_model(resumed(tmp_path, argument, "resume_force=true", command=command))
    assert set(changes(forced)) & {*resume.MEANING, *resume.MEANING_OF[command]}


def test_settings_of_the_other_command_do_not_matter(tmp_path: Path) -> None:
    made_run(tmp_path, "sft", *BASELINE)
    assert "policy_gradient.group_size" in changes(resumed(tmp_path, "policy_gradient.group_size=4", command="sft"))


def test_a_run_of_another_command_is_refused(tmp_path: Path) -> None:
    policy = made_run(tmp_path, "policy_gradient", *BASELINE)
    tuned = made_run(tmp_path, "sft", *BASELINE)
    assert resumed(tmp_path).policy_gradient.resume_from == str(policy.path.resolve())  # not the newest run
    with pytest.raises(UserError, match=r"is a run of command=sft: resume it with that command"):
        resumed(tmp_path, f"policy_gradient.resume_from={tuned.path.name}")
    with pytest.raises(UserError, match=r"is a run of command=sft"):
        resumed(tmp_path, f"policy_gradient.resume_from={tuned.checkpoints / 'step_1'}")


def test_without_recorded_arguments_an_option_sets_its_section(tmp_path: Path) -> None:
    run = made_run(tmp_path, "policy_gradient", *BASELINE)
    run.manifest.unlink()
    assert resumed(tmp_path).learner.lr == 2e-6
    with pytest.raises(UserError, match="loss_type was"):
        changes(resumed(tmp_path, "policy_gradient=grpo"))
    assert resumed(tmp_path, "policy_gradient/off_policy=icepop").policy_gradient.off_policy.high == 5


def test_another_correction_replaces_all_of_the_first(tmp_path: Path) -> None:
    made_run(tmp_path, "policy_gradient", *BASELINE, "policy_gradient/off_policy=geo_rs_tis")
    assert resumed(tmp_path).policy_gradient.off_policy.reject.geometric_mean == (0.999, 1.001)
    now = resumed(tmp_path, "policy_gradient/off_policy=icepop").policy_gradient.off_policy
    assert (now.correction, now.high, now.reject.ranges) == ("masked_importance", 5, {})


def test_a_configuration_of_an_older_version_is_completed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path, "policy_gradient", *BASELINE, "policy_gradient.rewards={correct:1}")
    values = yaml.safe_load(run.config_yaml.read_text())
    del values["tracker"], values["doctor"], values["resume_force"], values["policy_gradient"]["kl"]["horizon"]
    values["learner"]["old_name"] = values["removed"] = 3
    run.config_yaml.write_text(yaml.safe_dump(values, sort_keys=False))  # without an end mark
    config = resumed(tmp_path)
    assert "removed, learner.old_name" in capsys.readouterr().out
    assert config.policy_gradient.kl.horizon == 10000
    assert config.policy_gradient.rewards == {"correct": 1}
    assert changes(config) == {}


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    run = made_run(tmp_path, "policy_gradient", *BASELINE)
    whole = run.config_yaml.read_bytes()
    for size in (*range(0, len(whole) - 4, 97), *range(len(whole) - 40, len(whole) - 4)):
        run.config_yaml.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"config\.yaml .*(cut short|cannot be read).*restore"):
            saved_config.read_saved(run)
    with pytest.raises(UserError, match=r"config\.yaml .*cut short"):
        resumed(tmp_path)
    run.config_yaml.write_bytes(whole)
    for content in (b"", run.manifest.read_bytes()[:-9], b"[]", b"\xff\xfe", b'{"resumes": 3}'):
        run.manifest.write_bytes(content)
        with pytest.raises(UserError, match=r"manifest\.json is cut short or damaged"):
            manifest.earlier_arguments(run)
    with pytest.raises(UserError, match=r"manifest\.json is cut short or damaged"):
        resumed(tmp_path)


def test_the_run_folder_is_locked_whatever_shm_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path, "policy_gradient", *BASELINE)
    with resume.reopened(resumed(tmp_path)):
        assert try_lock(run.path) is None
        words = ["command=policy_gradient", f"artifacts={tmp_path}", "policy_gradient.resume_from=latest"]
        assert main([*words, f"shm={tmp_path}", "wandb.mode=off"]) == 2
    assert f"{run.path.name} is in use by another process" in capfd.readouterr().err.splitlines()[-1]


def test_changed_inputs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(tmp_path, "policy_gradient", *BASELINE)
    monkeypatch.setattr(sys, "argv", ["cli.py"])
    manifest.write_manifest(run, {}, inputs={"prepared data": "a", "tokenizer files": "b"})
    config = resumed(tmp_path)
    with resume.reopened(config) as found:
        assert resume.changed_inputs(found, config, {"prepared data": "a", "tokenizer files": "b", "new": "c"}) == ()
        with pytest.raises(UserError, match=r'prepared data was "a", now "x".*resume_force=true'):
            resume.changed_inputs(found, config, {"prepared data": "x", "tokenizer files": "b"})


@pytest.mark.slow
def test_the_readme_example_keeps_method_and_learning_rate(cli: Cli) -> None:
    small = ("actor.engine=scripted", "policy_gradient.updates=1", "policy_gradient.episodes_per_update=16")
    small += ("policy_gradient.eval_limit=8", "wandb.mode=off")
    assert cli.run("command=policy_gradient", *BASELINE, *small).returncode == 0
    (run,) = cli.runs()
    again = ("command=policy_gradient", "name=my_run", "policy_gradient.resume_from=latest")
    done = cli.run(*again, "policy_gradient.updates=2", "learner.max_grad_norm=2")
    assert done.returncode == 0, done.stderr
    assert cli.runs() == [run]
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["policy_gradient"]["loss_type"] == "reinforce_with_baseline"
    assert values["learner"]["lr"] == 2e-6
    events = [(e["key"], e["old"], e["new"]) for e in read_jsonl(run / "events.jsonl") if e["kind"] == "config_changed"]
    assert sorted(events) == [("learner.max_grad_norm", 1.0, 2.0), ("policy_gradient.updates", 1, 2)]
    assert [r["step"] for r in read_jsonl(run / "metrics.jsonl") if "step" in r] == [1, 2]
    refused = cli.run(*again, "policy_gradient.group_size=4")
    assert refused.returncode == 2
    assert "policy_gradient.group_size was 8, now 4" in refused.stderr.splitlines()[-1]
