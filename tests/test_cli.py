"""Command line: every preset and method composes; bad configuration is refused before an engine starts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_args

import pytest

from cli import COMMANDS, CONF, load_config, main, presets
from grpo_gsm8k.config import NEUTRAL_SAMPLING, Config, PolicyGradientConfig
from grpo_gsm8k.errors import UserError

PG = ["command=policy_gradient", "preset=cpu_demo"]
EPOCHS = [*PG, "policy_gradient.updates=null", "policy_gradient.epochs=3"]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_composes(preset: str) -> None:
    assert load_config(["command=policy_gradient", f"preset={preset}"]).command == "policy_gradient"


SETTINGS = sorted(path.stem for path in (CONF / "policy_gradient").glob("*.yaml"))


@pytest.mark.parametrize("group", SETTINGS)
@pytest.mark.parametrize("preset", presets())
def test_every_method_composes_with_every_preset(group: str, preset: str) -> None:
    config = load_config(["command=policy_gradient", f"policy_gradient={group}", f"preset={preset}"])
    assert config.policy_gradient.group_size == 8


def test_the_usual_methods_are_there() -> None:
    named = "reinforce reinforce_baseline grpo dr_grpo dapo rloo gspo cispo ppo"
    assert set(named.split()) <= set(SETTINGS)


def test_nucleus_sampling_with_a_correction_is_accepted() -> None:
    corrected = ["policy_gradient.off_policy.proximal=recomputed", "policy_gradient.off_policy.correction=truncate"]
    assert load_config([*PG, "policy_gradient.top_p=0.8", *corrected]).policy_gradient.top_p == 0.8


def test_settings_that_change_nothing_are_accepted() -> None:
    neutral = ["policy_gradient.top_k=-1", "policy_gradient.min_p=0", "policy_gradient.repetition_penalty=1"]
    assert load_config([*PG, *neutral]).policy_gradient.top_k == 0
    greedy = load_config(["command=eval", "preset=cpu_demo", "eval.repetition_penalty=1.2", "eval.top_k=-1"])
    assert greedy.eval.repetition_penalty == 1.2


def test_stop_texts_of_the_data_set_apply_to_plain_prompts() -> None:
    def stops(*arguments: str, command: str = "policy_gradient") -> tuple[str, ...]:
        return load_config([f"command={command}", *arguments]).stop_texts

    for command in ("policy_gradient", "sft", "eval"):
        assert stops(command=command) == ()  # the default prompt is a chat prompt
        assert stops("prompt=base", command=command) == ("Question:",)
        assert stops("prompt=base", f"{command}.stop=[]", command=command) == ()
        assert stops(f"{command}.stop=[END,'####']", command=command) == ("END", "####")
    assert stops("prompt=base", "data=chain_sum") == ()
    assert stops("prompt=base", "eval.stop=[END]") == ("Question:",)


@pytest.mark.parametrize(
    ("epochs", "prompts", "updates"), [(3, 320, 30), (3, 321, 31), (0.1, 320, 1), (0.7, 320, 7), (1.1, 320, 11)]
)
def test_updates_of_a_number_of_epochs(epochs: float, prompts: int, updates: int) -> None:
    config = load_config([*EPOCHS, f"policy_gradient.epochs={epochs}"])
    assert config.policy_gradient.prompts_per_update == 32
    assert config.policy_gradient.updates_for(prompts) == updates


def test_a_sampling_setting_changes_what_the_learner_computes_or_is_checked() -> None:
    """Settings of vLLM's that change the distribution, should the configuration get them."""
    shaping = {"top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"}
    assert shaping & set(PolicyGradientConfig.model_fields) == set(NEUTRAL_SAMPLING)


BAD = [
    ([*PG, "policy_gradient.grup_size=4"], "grup_size"),
    ([*PG, "+policy_gradient.grup_size=4"], "policy_gradient.grup_size: unknown key"),
    ([*PG, "+policy_gradient._target_=os.system"], "policy_gradient._target_: unknown key"),
    ([*PG, "preset=no_such"], "no_such"),
    (["preset=cpu_demo"], "command"),
    (["command=fly", "preset=cpu_demo"], "command"),
    ([*PG, "policy_gradient.episodes_per_update=100"], "episodes_per_update=100 is not a multiple of group_size=8"),
    ([*PG, "policy_gradient.group_size=1"], "policy_gradient.group_size to 2 or more"),
    ([*PG, "policy_gradient.minibatches=100"], "lower policy_gradient.minibatches"),
    ([*PG, "learner.lora.enabled=true", "learner.lora.rank=0"], "learner.lora.rank"),
    ([*PG, "learner=qlora", "actor.lora=adapter"], "set actor.lora=merged"),
    ([*PG, "learner.quantization=nf4"], "learner.lora.enabled=true"),
    ([*PG, "policy_gradient=gspo", "policy_gradient.cliprange=0.2"], "policy_gradient.cliprange=3e-4"),
    ([*PG, "policy_gradient.kl.target=0.1"], "set policy_gradient.kl.coef=0.05"),
    ([*PG, "policy_gradient.loss_type=ppo_clip"], "use policy_gradient=ppo"),
    ([*PG, "policy_gradient=ppo", "policy_gradient.critic.kind=none"], "needs a critic"),
    ([*PG, "policy_gradient.critic.kind=shared"], "set it to none"),
    ([*PG, "policy_gradient.critic.lam_value=0.0"], "lam_value=0.0 has no effect without a critic"),
    ([*PG, "policy_gradient.critic.pretrain_updates=2"], "pretrain_updates=2 has no effect without a critic"),
    ([*PG, "policy_gradient=ppo", "policy_gradient.critic.pretrain_updates=50"], "or raise policy_gradient.updates"),
    ([*PG, "policy_gradient.off_policy.correction=truncate"], "off_policy.proximal=recomputed"),
    ([*PG, "policy_gradient=m2po", "policy_gradient/off_policy=tis"], "off_policy.proximal=behaviour"),
    ([*PG, "policy_gradient=clip_cov", "policy_gradient.clip_cov.low=7"], "lower policy_gradient.clip_cov.low"),
    ([*PG, "policy_gradient=online_dpo", "policy_gradient.advantage=group_mean"], "set policy_gradient.advantage=null"),
    ([*PG, "policy_gradient.advantage=preference"], "dpo and preference belong together"),
    ([*PG, "policy_gradient=online_dpo", "policy_gradient.reduction=token_mean"], "reduction=sequence_sum"),
    ([*PG, "policy_gradient=online_dpo", "policy_gradient/off_policy=tis"], "off_policy.proximal=behaviour"),
    ([*PG, "policy_gradient=online_dpo", "policy_gradient.kl={coef: 0.1, place: reward}"], "kl.place=loss"),
    ([*PG, "policy_gradient=online_dpo", "policy_gradient.cliprange=0.2"], "policy_gradient.cliprange=null"),
    (["command=sft", "sft.dpo.beta=0.2"], "set sft.loss=dpo, or drop the key"),
    (["command=traces", "traces.pairs=2"], "traces.samples_per_prompt to 2 or more"),
    ([*PG, "policy_gradient.dpo.beta=0.2"], "set policy_gradient.loss_type=dpo, or drop the key"),
    ([*PG, "policy_gradient.kl_cov.coef=0.5"], "set policy_gradient.loss_type=kl_cov, or drop the key"),
    ([*PG, "policy_gradient.off_policy.reject.token=[0.5,2]"], "off_policy.proximal=recomputed"),
    ([*PG, "policy_gradient.off_policy.reject.token=[1.5,2]"], "give [low, high] with low from 0 to 1"),
    ([*PG, "policy_gradient=gmpo", "policy_gradient/off_policy=icepop"], "off_policy.level=geometric_mean"),
    ([*PG, "policy_gradient=vespo", "policy_gradient/off_policy=tis"], "off_policy.proximal=behaviour"),
    ([*PG, "policy_gradient/off_policy=tiss"], "did you mean policy_gradient/off_policy=tis?"),
    ([*PG, "policy_gradient=reinforce", "policy_gradient.ratio=sequence"], "policy_gradient.ratio=token"),
    ([*PG, "policy_gradient=cispo", "policy_gradient.dual_clip=3"], "dual_clip"),
    ([*PG, "policy_gradient=reinforce", "policy_gradient.active_sampling=8"], "active_sampling"),
    ([*PG, "policy_gradient=sapo", "policy_gradient.cliprange=0.2"], "set policy_gradient.cliprange=null"),
    ([*PG, "policy_gradient=sapo", "policy_gradient.ratio=sequence"], "set policy_gradient.ratio=token"),
    ([*PG, "policy_gradient=gmpo", "policy_gradient.dual_clip=3"], "dual_clip has no effect with loss_type=gmpo"),
    ([*PG, "policy_gradient=gmpo", "policy_gradient.reduction=token_mean"], "policy_gradient.reduction=sequence_mean"),
    ([*PG, "policy_gradient.vespo.k_pos=1"], "set policy_gradient.loss_type=vespo, or drop the key"),
    ([*PG, "policy_gradient=vespo", "policy_gradient.advantage=token_whitened"], "from token to token"),
    ([*PG, "policy_gradient=vespo", "policy_gradient.off_policy.proximal=recomputed"], "off_policy.proximal=behaviour"),
    ([*PG, "policy_gradient=gspo", "policy_gradient.ratio=geometric_mean_token"], "ratio=geometric_mean"),
    ([*PG, "policy_gradient.pass_k=4"], "set pass_k to null"),
    ([*PG, "policy_gradient.advantage=pass_at_k"], "needs policy_gradient.pass_k"),
    ([*PG, "policy_gradient=pass_at_k", "policy_gradient.pass_k=9"], "lower policy_gradient.pass_k"),
    ([*PG, "policy_gradient=pass_at_k", "policy_gradient.rewards.format=0.1"], "needs rewards of 0 and 1"),
    ([*PG, "policy_gradient=remax", "policy_gradient.active_sampling=8"], "active_sampling"),
    ([*PG, "policy_gradient.teacher.path=embedded:tiny"], "set policy_gradient.advantage=distill, or drop the key"),
    ([*PG, "policy_gradient=distill", "policy_gradient.teacher.kl_weight=0"], "policy_gradient.teacher.kl_weight"),
    ([*PG, "policy_gradient=distill", "policy_gradient.critic.kind=shared"], "set it to none"),
    ([*PG, "policy_gradient=distill", "policy_gradient.active_sampling=8"], "active_sampling=8 has no effect"),
    ([*PG, "policy_gradient=distill", "policy_gradient.ratio=sequence"], "set policy_gradient.ratio=token"),
    ([*PG, "policy_gradient=distill", "policy_gradient.overlong=penalty"], "set policy_gradient.overlong=keep or mask"),
    ([*PG, "policy_gradient=distill", "policy_gradient.loss_type=gmpo"], "from token to token"),
    (
        [*PG, "policy_gradient=distill", "policy_gradient.kl.coef=0.1", "policy_gradient.kl.place=reward"],
        "set policy_gradient.kl.place=loss",
    ),
    (
        [*PG, "policy_gradient=distill", "policy_gradient.teacher.task_weight=1", "policy_gradient.group_size=1"],
        "set policy_gradient.group_size to 2 or more",
    ),
    (
        [*PG, "policy_gradient=distill", "policy_gradient.teacher.base_url=http://127.0.0.1:8000/v1"],
        "set policy_gradient.teacher.model",
    ),
    ([*PG, "policy_gradient=distill", "policy_gradient.teacher.base_url=ftp://host"], "teacher.base_url"),
    ([*PG, "policy_gradient=distill", "policy_gradient.teacher.model=x"], "set policy_gradient.teacher.base_url"),
    (
        [
            *(*PG, "policy_gradient=distill", "policy_gradient.teacher.base_url=http://127.0.0.1:8000/v1"),
            *("policy_gradient.teacher.model=x", "policy_gradient.teacher.path=embedded:tiny"),
        ],
        "set one of them, the other to null",
    ),
    (
        [
            *(*PG, "policy_gradient=distill", "policy_gradient.teacher.base_url=http://127.0.0.1:8000/v1"),
            *("policy_gradient.teacher.model=x", "policy_gradient.temperature=0.7"),
        ],
        "set policy_gradient.temperature=1",
    ),
    (
        [*PG, "policy_gradient=remax", "policy_gradient.kl.coef=0.1", "policy_gradient.kl.place=reward"],
        "set policy_gradient.kl.place=loss",
    ),
    ([*PG, "policy_gradient=maxrl", "+policy_gradient.rewards.soft_overlong=0.1"], "rewards.soft_overlong is below"),
    ([*PG, "policy_gradient=maxrl", "policy_gradient.overlong=penalty"], "set policy_gradient.overlong=keep or mask"),
    ([*PG, "policy_gradient.temperature=0"], "policy_gradient.temperature"),
    ([*PG, "policy_gradient.temperature=0.009"], "policy_gradient.temperature"),
    (["command=eval", "preset=cpu_demo", "eval.temperatures=[0.0,0.009]"], "samples at 0.01 or more"),
    ([*PG, "policy_gradient.top_p=0.99"], "set policy_gradient.top_p=1"),
    ([*PG, "policy_gradient.top_p=0.8", "policy_gradient.off_policy.proximal=recomputed"], "off_policy.correction="),
    ([*PG, "policy_gradient.top_k=40"], "set policy_gradient.top_k=0"),
    ([*PG, "policy_gradient.min_p=0.1"], "set policy_gradient.min_p=0"),
    ([*PG, "policy_gradient.repetition_penalty=1.1"], "set policy_gradient.repetition_penalty=1"),
    ([*PG, "policy_gradient.stop=Question:"], 'such as ["Question:"]'),
    ([*PG, "policy_gradient.stop=['']"], 'such as ["Question:"]'),
    ([*PG, r'policy_gradient.stop=["\n\n"]'], "instead of a line break"),
    ([*PG, "policy_gradient.epochs=3"], "policy_gradient.updates=null policy_gradient.epochs=3"),
    ([*PG, "policy_gradient.updates=null"], "set exactly one of them"),
    ([*EPOCHS, "policy_gradient.active_sampling=8"], "policy_gradient.updates=N"),
    ([*EPOCHS, "data.sampler=difficulty"], "policy_gradient.updates=N"),
    ([*EPOCHS, "policy_gradient.epochs=0"], "policy_gradient.epochs"),
    (
        [*PG, "policy_gradient.keep_last=0"],
        "policy_gradient.keep_last: Input should be an integer of at least 1, or all",
    ),
    ([*PG, "policy_gradient.keep_last=all", "policy_gradient.record=true"], "set policy_gradient.keep_last=N"),
    ([*PG, "data.sampler=hard"], "data.sampler: Input should be 'uniform' or 'difficulty'"),
    ([*PG, "learner.decay_fraction=0.5"], "learner.schedule=wsd"),
    (["command=sft", "preset=cpu_demo", "sft.batch_size=16"], "sft.min_tokens_per_update=null sft.batch_size=16"),
    (["command=sft", "preset=cpu_demo", "sft.min_tokens_per_update=null"], "set exactly one of them"),
    (["command=eval", "preset=cpu_demo", "eval.top_p=0.9"], "no effect at temperature 0"),
    (["command=eval", "preset=cpu_demo", "eval.eval_suites=lm_eval", "eval.stop=[a]"], "no effect on lm-eval tasks"),
    ([*PG, "+policy_gradient.rewards.beauty=0.5"], "policy_gradient.rewards.beauty: unknown reward part"),
    ([*PG, "actor.max_batched_tokens=64"], "raise actor.max_batched_tokens"),
    ([*PG, "actor.max_batched_tokens=200"], "lower actor.max_num_seqs"),
    ([*PG, "policy_gradient.max_new_tokens=160"], "actor.max_model_len"),
    ([*PG, "actor.max_model_len=100000", "actor.max_batched_tokens=100000"], "actor.max_model_len"),
    pytest.param([*PG, "actor.max_model_len=100"], "actor.max_model_len", marks=pytest.mark.slow),
    pytest.param([*PG, "learner.device=cuda:0"], "learner.device", marks=pytest.mark.slow),
    pytest.param([*PG, "actor.device=cuda:0"], "actor.device", marks=pytest.mark.slow),
    ([*PG, "model.path=/no/such/folder"], "model.path"),
    ([*PG, "name=../../x"], "name"),
    ([*PG, "shm=/no/such/folder"], "shm"),
    ([*PG, "data=jsonl", "data.train_path=/no/file", "data.test_path=/no/file"], "/no/file"),
    ([*PG, "policy_gradient.resume_from=latest"], "resume_from"),
    ([*PG, "wandb.mode=online"], "WANDB_API_KEY"),
    ([*PG, "prompt=chat", "prompt.text=hello"], "question"),
    ([*PG, "prompt.answer_format=roman"], "prompt.answer_format: Input should be 'hash', 'boxed', 'answer',"),
    ([*PG, "prompt=base", "prompt.system=Think."], "or use prompt.instruction"),
]


@pytest.mark.parametrize(
    ("arguments", "needle"), BAD, ids=lambda value: " ".join(value[2:]) or "-" if isinstance(value, list) else ""
)
def test_refused(
    arguments: list[str],
    needle: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    code = main([*arguments, f"artifacts={tmp_path / 'artifacts'}"])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2, last
    assert last.startswith("error: ")
    assert needle in last
    # An actor may have begun to import, but no engine was started: it would have written to its log.
    assert not any(log.stat().st_size for log in tmp_path.glob("artifacts/runs/*/logs/actor*"))


def test_secrets_are_not_part_of_the_configuration() -> None:
    with pytest.raises(UserError):
        load_config([*PG, "+wandb.api_key=x"])


def test_every_command_has_a_function() -> None:
    assert set(COMMANDS) == set(get_args(Config.model_fields["command"].annotation))
    for command in COMMANDS.values():
        assert callable(getattr(importlib.import_module(command.module), command.function))


def test_an_interrupted_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("grpo_gsm8k.command_line.entry.run_words", interrupted)
    assert main(["command=data"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
