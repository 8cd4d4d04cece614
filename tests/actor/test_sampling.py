"""Stop texts and sampling settings of the real engine, compared with Hugging Face in float32, token by token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gsm8k.grading.completion import before_stop

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
Found = dict[str, Any]


def several_letters(index: int, token: str) -> str:
    """Give the letters of the tiny vocabulary three characters: 13 have an S inside, half end in b and begin with q."""
    if len(token) > 1 or not token.isascii() or not token.isalpha():
        return token
    return f"{'q' if index % 2 else 'p'}{token}{'Sb' if index % 4 == 1 else 'xb' if index % 4 == 2 else 'xx'}"


@pytest.fixture(scope="module")
def folder(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model with a tokenizer whose tokens have several letters."""
    from transformers import AutoModelForCausalLM

    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    target = tmp_path_factory.mktemp("letters")
    AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).save_pretrained(target)
    build_tokenizer().save_pretrained(target)
    file = target / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    values["model"]["vocab"] = {several_letters(index, token): index for token, index in vocabulary.items()}
    file.write_text(json.dumps(values))
    return target


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    """Record of `sampling_scenario.py`, which runs in its own process because vLLM configures the whole process."""
    output = folder / "found.json"
    command = [sys.executable, str(HERE / "sampling_scenario.py"), str(folder), str(output)]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)})
    record: Found = json.loads(output.read_text())
    return record


def hf_logprobs(folder: Path, prompt: list[int], tokens: list[int], **given: float) -> np.ndarray:
    """Return the log-probability of each token under the sampling settings, from Hugging Face's logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = model(torch.tensor([prompt + tokens])).logits[0].double()[len(prompt) - 1 : -1]
    made = []
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        scores = row.clone()
        for seen in {*prompt, *tokens[:i]}:  # the penalty of CTRL, arXiv:1909.05858, of prompt and completion
            penalty = given.get("repetition_penalty", 1.0)
            scores[seen] = scores[seen] / penalty if scores[seen] > 0 else scores[seen] * penalty
        probabilities = torch.softmax(scores / 0.8, -1)
        keep = probabilities >= given.get("min_p", 0.0) * probabilities.max()
        if k := int(given.get("top_k", 0)):
            keep &= probabilities >= probabilities.sort(descending=True).values[k - 1]
        made.append(float(torch.log(probabilities[token] * keep[token] / probabilities[keep].sum())))
    return np.array(made)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("free", {}),
        ("inside", {}),
        ("across", {}),
        ("top_k", {"top_k": 5}),
        ("min_p", {"min_p": 0.3}),
        ("repetition_penalty", {"repetition_penalty": 1.3}),
        ("all", {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.2}),
    ],
)
def test_every_logprob_is_that_of_the_distribution_sampled_from(
    found: Found, folder: Path, name: str, settings: dict[str, float]
) -> None:
    for completion in found["completions"][name]:
        assert len(completion["logprobs"]) == len(completion["tokens"])
        expected = hf_logprobs(folder, found["prompt"], completion["tokens"], **settings)
        assert np.abs(expected - completion["logprobs"]).max() < 1e-3
        assert completion["spans"] == [[0, 0, len(completion["tokens"])]]


@pytest.mark.parametrize(("name", "stops"), [("inside", ["S"]), ("across", ["xq", "bq"])])
def test_a_stop_text_ends_a_completion_with_the_token_that_completes_it(
    found: Found, folder: Path, name: str, stops: list[str]
) -> None:
    """The tokens are a prefix of those without stop texts: the engine samples nothing else because of them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    middle = 0
    for completion, free in zip(found["completions"][name], found["completions"]["free"], strict=True):
        tokens = completion["tokens"]
        assert tokens == free["tokens"][: len(tokens)]
        texts = [tokenizer.decode(tokens[:end], skip_special_tokens=True) for end in range(len(tokens) + 1)]
        assert completion["finish_reason"] == "stop"
        if tokens[-1] in (0, 1):  # <pad> or <eos> was sampled first
            assert not any(stop in texts[-1] for stop in stops)
            continue
        assert any(stop in texts[-1] for stop in stops)
        assert not any(stop in texts[-2] for stop in stops)
        shown = before_stop(texts[-1], stops)
        assert not any(stop in shown for stop in stops)
        middle += shown not in texts  # the stop text began in the middle of a token
    assert middle >= 4
