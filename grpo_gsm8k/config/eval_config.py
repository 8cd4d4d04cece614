"""The section `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import (
    MIN_TEMPERATURE,
    ItemLimit,
    MinP,
    OptionalStopTexts,
    Prompting,
    RepetitionPenalty,
    Section,
    Temperature,
    TopK,
    TopP,
    refuse_repeated,
    require_both,
)
from grpo_gsm8k.config.policy_gradient_config import NEUTRAL_SAMPLING


class EvalConfig(Section):
    """Models, problems, prompts and sampling of an evaluation."""

    suite: Literal["accuracy", "generate"]
    input_path: Path | None
    model_path: str | list[str] | None
    eval_suites: str | list[str]
    lm_eval_tasks: list[str] = Field(min_length=1)
    lm_eval_backend: Literal["engine", "server"]
    lm_eval_shots: int | None = Field(ge=0)
    lm_eval_max_gen_toks: int = Field(ge=1)
    lm_eval_chat: bool
    baseline: str | None
    regression_threshold: float = Field(ge=0)
    fail_on_regression: bool
    data_path: Path | None
    split: Literal["val", "test"]
    limit: ItemLimit | None
    prompting: list[Prompting] = Field(min_length=1)
    shots: int = Field(ge=1)
    examples_file: Path | None = None
    temperatures: list[Temperature] = Field(min_length=1)
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    stop: OptionalStopTexts = None
    samples: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    num_shards: int = Field(ge=1)
    max_attempts: int = Field(ge=1)
    contamination: bool
    resume_from: str | None

    @model_validator(mode="after")
    def _check_temperatures(self) -> Self:
        if any(0 < t < MIN_TEMPERATURE for t in self.temperatures):
            raise ValueError(
                f"temperatures={self.temperatures}: the engine samples at {MIN_TEMPERATURE} or more, or greedily at 0"
            )
        refuse_repeated("temperatures", self.temperatures, "give distinct numbers")
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        for key in ("top_p", "top_k", "min_p"):
            if getattr(self, key) != NEUTRAL_SAMPLING[key] and not any(self.temperatures):
                raise ValueError(
                    f"{key}={getattr(self, key):g} has no effect at temperature 0: set eval.temperatures=[0.7], or "
                    f"eval.{key}={NEUTRAL_SAMPLING[key]:g}"
                )
        return self

    @model_validator(mode="after")
    def _check_own_suite(self) -> Self:
        suites = [self.eval_suites] if isinstance(self.eval_suites, str) else self.eval_suites
        used = self.suite == "generate" or bool({"gsm8k", "all"} & set(suites))
        changed = [key for key, neutral in NEUTRAL_SAMPLING.items() if getattr(self, key) != neutral]
        for key in [*changed, *(["stop"] if self.stop is not None else [])]:
            if not used:
                raise ValueError(
                    f"{key} has no effect on lm-eval tasks, which have their own settings: add gsm8k to "
                    f"eval.eval_suites, or leave out eval.{key}"
                )
        return self

    @model_validator(mode="after")
    def _check_baseline(self) -> Self:
        if self.fail_on_regression and self.baseline is None:
            raise ValueError("fail_on_regression=true needs a baseline: set eval.baseline=MODEL")
        return self

    @model_validator(mode="after")
    def _check_generate(self) -> Self:
        generates = self.suite == "generate"
        require_both("eval.suite=generate", generates, "eval.input_path=FILE", self.input_path is not None)
        if self.suite == "generate" and len(self.temperatures) > 1:
            raise ValueError(
                f"temperatures={self.temperatures}: eval.suite=generate takes one, such as eval.temperatures=[0.7]"
            )
        if self.suite == "generate" and isinstance(self.limit, str):
            raise ValueError(f"limit={self.limit}: eval.suite=generate takes the first lines only: set eval.limit=N")
        return self

    @model_validator(mode="after")
    def _check_examples(self) -> Self:
        """Refuse repeated ways of prompting, and examples that no way uses."""
        refuse_repeated("prompting", self.prompting, "give distinct ways")
        unused = self.suite == "generate" or all(way.startswith("zero_shot") for way in self.prompting)
        if self.examples_file is not None and unused:
            ways = "eval.suite=generate" if self.suite == "generate" else f"eval.prompting={self.prompting}"
            raise ValueError(f"examples_file has no effect with {ways}: add one_shot or few_shot, or set it to null")
        return self
