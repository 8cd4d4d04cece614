"""The requests of an evaluation: one per prompting variant, temperature and problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.prompting import BARE, shot_count, without_instruction
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.transport.protocol import GenerateGroup, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.prompts import Shot
    from grpo_gsm8k.grading.problem import Problem


@dataclass(frozen=True, slots=True)
class Question:
    """One problem with a prompting variant and a temperature. `prompt` is the exact text."""

    model: str
    prompting: str
    temperature: float
    problem: Problem
    prompt: str
    request: GenerateGroup

    @property
    def key(self) -> tuple[str, str, float, str]:
        """The key of its lines in predictions.jsonl."""
        return self.model, self.prompting, self.temperature, self.problem.id


def questions(
    config: Config,
    model: str,
    tokenizer: Any,
    stops: tuple[int, ...],
    evaluated: Sequence[Problem],
    examples: tuple[Shot, ...],
) -> list[Question]:
    """Build all questions for one model; a prompting variant shows the first ones of `examples`.

    Raises UserError for a prompt that leaves too few tokens for an answer.
    """
    made: list[Question] = []
    for prompting in config.eval.prompting:
        template = without_instruction(config.prompt) if prompting.endswith(BARE) else config.prompt
        shots = examples[: shot_count(prompting, config.eval.shots)]
        for index, problem in enumerate(evaluated):
            ids = encode_prompt(template, problem.question, tokenizer, shots)
            _check_room(config, prompting, problem, len(ids))
            for temperature in config.eval.temperatures:
                request = GenerateGroup(
                    request_id=f"{prompting}/{temperature}/{index}",
                    prompt_ids=ids,
                    n=samples_at(config, temperature),
                    sampling=sampling_spec(config, temperature, index, stops),
                    min_version=VERSION,
                    pinned=True,
                )
                text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
                made.append(Question(model, prompting, temperature, problem, text, request))
    return made


def sampling_spec(config: Config, temperature: float, index: int, stops: tuple[int, ...]) -> SamplingSpec:
    """Return the sampling parameters of the problem at `index`; `stops` are token ids.

    The seed depends on the index alone, so that a resumed run samples the same completions.
    """
    given = config.eval
    return SamplingSpec(
        temperature=temperature,
        top_p=given.top_p,
        max_new_tokens=given.max_new_tokens,
        seed=(config.seed << 40) + index * given.samples,
        stop_token_ids=stops,
        stop_texts=config.stop_texts,
        top_k=given.top_k,
        min_p=given.min_p,
        repetition_penalty=given.repetition_penalty,
    )


def sampling_settings(config: Config) -> dict[str, Any]:
    """Return the settings that change what a temperature samples, for the summary of an evaluation."""
    given = config.eval
    names = ("top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
    return {**{name: getattr(given, name) for name in names}, "stop": list(config.stop_texts), "seed": config.seed}


def samples_at(config: Config, temperature: float) -> int:
    """Return the number of samples: one for greedy decoding, whose completions are all equal."""
    return config.eval.samples if temperature else 1


def _check_room(config: Config, prompting: str, problem: Problem, prompt_tokens: int) -> None:
    needed = prompt_tokens + config.eval.max_new_tokens
    if needed > config.actor.max_model_len:
        raise UserError(
            f"{prompting}: the prompt of {problem.id} has {prompt_tokens} tokens, which together with "
            f"eval.max_new_tokens={config.eval.max_new_tokens} exceed actor.max_model_len={config.actor.max_model_len}:"
            " raise the latter, or lower eval.shots or eval.max_new_tokens"
        )
