"""Lengths of prompts, compared with their exact encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from cli import load_config
from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight.prompt_lengths import mean_prompt
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT

PROBLEMS = [Problem(str(n), f"{n} + {n * n} =", "", "0") for n in range(10)]


@pytest.mark.parametrize("name", ["base", "worked"])
def test_a_plain_prompt_is_counted_exactly(name: str) -> None:
    prompt = load_config(["command=policy_gradient", "preset=cpu_demo", f"prompt={name}"]).prompt
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    exact = np.mean([len(encode_prompt(prompt, problem.question, tokenizer)) for problem in PROBLEMS])
    assert mean_prompt(prompt, EMBEDDED_TINY, PROBLEMS) == pytest.approx(exact, abs=2)  # the instruction's edges


def test_nothing_to_measure_means_the_typical_length(tmp_path: Path) -> None:
    prompt = load_config(["command=policy_gradient", "preset=cpu_demo"]).prompt
    assert mean_prompt(prompt, EMBEDDED_TINY, []) == TYPICAL_PROMPT
    assert mean_prompt(prompt, tmp_path, PROBLEMS) == TYPICAL_PROMPT
