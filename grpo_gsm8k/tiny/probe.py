"""Accuracy of a newly trained model on held-out questions."""

from __future__ import annotations

import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from grpo_gsm8k.tiny.sums import Sum

MAX_NEW_TOKENS = 48


def complete(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, prompts: list[str], sample: bool, batch_size: int = 128
) -> list[str]:
    """Return one completion per prompt, cut at <eos>; greedy, or sampled at temperature 1."""
    model.eval()
    options = {"temperature": 1.0, "top_k": 0} if sample else {}
    completions: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], padding=True, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=sample, **options)
        tails = ids[:, batch["input_ids"].shape[1] :]
        completions += tokenizer.batch_decode(tails, skip_special_tokens=True)
    return completions


def is_right(problem: Sum, completion: str) -> bool:
    """Return whether the last line is `#### <answer>`."""
    return completion.rpartition("\n")[2].strip() == f"#### {problem.answer}"


def accuracy(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: list[Sum], sample: bool = False) -> float:
    """Return the fraction of problems answered correctly and in the demo's format."""
    completions = complete(model, tokenizer, [problem.prompt for problem in problems], sample)
    return sum(map(is_right, problems, completions)) / len(problems)
