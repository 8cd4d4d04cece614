"""How long the prompts of a run are, without the imports that rendering them exactly would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import PromptConfig
    from grpo_gsm8k.grading.problem import Problem

SAMPLE = 64  # prompts; their lengths vary little


def mean_prompt(prompt: PromptConfig, model_folder: Path, problems: Sequence[Problem]) -> float:
    """Return the mean length in tokens of the first prompts, without the few tokens that a chat template adds.

    Without problems, or a `tokenizer.json` beside the model, it is TYPICAL_PROMPT.
    """
    file = model_folder / "tokenizer.json"
    if not problems or not file.is_file():
        return TYPICAL_PROMPT
    from tokenizers import Tokenizer  # lazy: the doctor does not need it

    encode = Tokenizer.from_file(str(file)).encode
    texts = [prompt.text.replace("{question}", problem.question) for problem in problems[:SAMPLE]]
    fixed = len(encode(f"{prompt.system}\n{prompt.instruction}").ids) if prompt.system or prompt.instruction else 0
    return fixed + sum(len(encode(text).ids) for text in texts) / len(texts)
