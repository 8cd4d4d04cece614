"""Sizes of a training run that memory and time depend on. Only this module distinguishes SFT from policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

TYPICAL_PROMPT = 160  # tokens of a GSM8K question with its template
LONG_PROMPT = 512  # tokens; no GSM8K question is longer
TYPICAL_ANSWER = 320  # tokens of a step-by-step answer to a GSM8K question
ROOM = 2 / 3  # assumed: a limit on new tokens is set so that a typical answer takes at most this share of it
SFT_TOKENS_FACTOR = 1.25  # assumed: min_tokens_per_update counts response tokens; prompts come on top


@dataclass(frozen=True, slots=True)
class Workload:
    """One training run as the estimates see it."""

    longest_sequence: int  # tokens
    group_size: int  # completions that share a prompt; 0: every example has its own prompt
    reference: bool  # whether a frozen copy of the start model is kept
    critic: Literal["none", "shared", "separate"]
    weight_versions: int  # held in /dev/shm at once
    recorded_checkpoints: int  # kept for `command=replay`
    learned_tokens: float  # tokens that an update computes, all epochs
    predicted_tokens: float  # of these, the ones whose log-probabilities are computed
    context: float  # keys of a token, on average: those before it in its prompt and answer
    generated: int  # completions per update
    prompts: int  # prompts per update
    overlapping: bool  # whether the actor generates while the learner trains
    waits_for_validations: bool  # whether validations delay updates even with the actor on its own device


def workload_of(config: Config, prompt: float = TYPICAL_PROMPT) -> Workload:
    """Describe the run of `config.command`; every command but `sft` counts as policy gradient.

    `prompt` is the mean length of a prompt in tokens.
    """
    return _sft(config) if config.command == "sft" else _policy_gradient(config, prompt)


def typical_answer(max_new_tokens: int) -> float:
    """Return the assumed mean length of a completion in tokens."""
    return min(float(TYPICAL_ANSWER), ROOM * max_new_tokens)


def answer_tokens(config: Config) -> float:
    """Return the mean length of a run's completions: an untrained model ends one by chance alone, so at the limit."""
    limit = config.training.max_new_tokens
    untrained = config.command != "sft" and config.model.init == "random"
    return float(limit) if untrained else typical_answer(limit)


def _sft(config: Config) -> Workload:
    return Workload(
        longest_sequence=config.preprocess.max_tokens,
        group_size=0,
        reference=config.sft.needs_reference and not config.learner.lora.enabled,
        critic="none",
        weight_versions=config.sft.versions_at_once,
        recorded_checkpoints=0,
        learned_tokens=_sft_tokens(config),
        predicted_tokens=_sft_tokens(config) / SFT_TOKENS_FACTOR,
        context=min(TYPICAL_PROMPT + TYPICAL_ANSWER, config.preprocess.max_tokens) / 2,
        generated=0,
        prompts=0,
        overlapping=False,
        waits_for_validations=False,
    )


def _sft_tokens(config: Config) -> float:
    sft = config.sft
    if sft.min_tokens_per_update is not None:
        return SFT_TOKENS_FACTOR * sft.min_tokens_per_update
    assert sft.batch_size is not None  # SftConfig requires one of them
    answers = 2 * TYPICAL_ANSWER if sft.loss == "dpo" else TYPICAL_ANSWER
    return float(sft.batch_size * min(TYPICAL_PROMPT + answers, 2 * config.preprocess.max_tokens))


def _policy_gradient(config: Config, prompt: float) -> Workload:
    pg = config.policy_gradient
    answer = answer_tokens(config)
    tokens = pg.episodes_per_update * answer + pg.prompts_per_update * prompt
    return Workload(
        longest_sequence=min(config.actor.max_model_len, pg.max_new_tokens + LONG_PROMPT),
        group_size=pg.group_size,
        reference=pg.needs_reference and not config.learner.lora.enabled,  # with LoRA, the base is the reference
        critic=pg.critic.kind,
        weight_versions=pg.versions_at_once,  # a validation pins one, while later ones are published
        recorded_checkpoints=pg.keep_last if pg.record and pg.keep_last != "all" else 0,
        learned_tokens=tokens * pg.epochs_per_batch,
        predicted_tokens=pg.episodes_per_update * answer * pg.epochs_per_batch,
        context=prompt + answer / 2,
        generated=pg.completions_per_update,
        prompts=pg.prompts_per_update,
        overlapping=pg.max_staleness > 0,
        waits_for_validations=True,
    )
