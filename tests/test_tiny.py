"""The embedded model: tokenizer, corpus, MADE_BY.json and deterministic training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.tiny import MODEL_FOLDER
from grpo_gsm8k.tiny.corpus import STYLES, Corpus, is_easy, quick_error, steps
from grpo_gsm8k.tiny.network import EOS_ID, PAD_ID
from grpo_gsm8k.tiny.probe import MAX_NEW_TOKENS, complete, is_right
from grpo_gsm8k.tiny.sums import demo_problems, from_expression, held_out
from grpo_gsm8k.tiny.tokenizer import CHARACTERS, build_tokenizer
from grpo_gsm8k.tiny.train import Recipe, encode, train


def test_one_token_per_character_and_exact_round_trips() -> None:
    for tokenizer in (build_tokenizer(), AutoTokenizer.from_pretrained(MODEL_FOLDER)):
        for text in (CHARACTERS, "  two spaces\n\n it's 12 + 3 =\n#### 15", " ", "\n"):
            ids = tokenizer(text)["input_ids"]
            assert ids == [3 + CHARACTERS.index(character) for character in text]
            assert tokenizer.decode(ids) == text
        assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (PAD_ID, EOS_ID, None)


def test_the_folder_is_small_and_is_what_its_record_says() -> None:
    file = MODEL_FOLDER / "model.safetensors"
    made_by = json.loads((MODEL_FOLDER / "MADE_BY.json").read_text())
    assert file.stat().st_size < 5e6
    assert hashlib.sha256(file.read_bytes()).hexdigest() == made_by["weights_sha256"]
    assert made_by["command"] == f"python -m grpo_gsm8k.tiny.train --seed 0 --steps {Recipe().steps}"
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    assert model.config.model_type == "qwen2"
    assert model.generation_config.eos_token_id == EOS_ID


def test_the_shipped_model_stops_by_itself() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER)
    completions = complete(model, tokenizer, [problem.prompt for problem in demo_problems(0, 16)], sample=False)
    assert all(len(completion) < MAX_NEW_TOKENS for completion in completions)
    assert any("####" in completion for completion in completions)


def test_worked_solutions_and_quick_errors() -> None:
    problem = from_expression("3 + 4 - 9")
    assert steps(problem) == (["3+4=7", "7-9=-2"], -2)
    assert steps(problem, slip_at=0, slip=1) == (["3+4=8", "8-9=-1"], -1)
    assert quick_error(problem) == 7
    assert is_right(problem, " 3+4=7\n7-9=-2\n#### -2")
    assert not any(is_right(problem, text) for text in (" 3+4=7", " The answer is -2.", " #### -21", "#### -2\n#### 3"))


def test_no_question_of_the_demo_is_in_the_corpus() -> None:
    asked = held_out()
    assert {p.expression for p in demo_problems(0, 64)} <= asked
    corpus = Corpus(seed=3)
    documents = [*corpus.exercises(1500), *corpus.excerpts(1500), *corpus.answers(1500)]
    prompts = [document[0].text for document in documents]
    expressions = [p.removesuffix(" =\nAnswer:").rpartition(": ")[2].strip() for p in prompts]
    assert all(from_expression(expression).expression == expression for expression in expressions)
    assert not set(expressions) & asked
    assert [document[0].text for document in Corpus(seed=3).exercises(50)] == prompts[:50]


def test_the_likely_style_of_a_hard_question_is_a_quick_one() -> None:
    easy, hard = from_expression("3 + 4 - 9"), from_expression("3 - 4 - 9")
    assert [is_easy(problem) for problem in (easy, hard, from_expression("1 + 2 + 3 + 4"))] == [True, False, False]
    assert all(sum(weights.values()) == pytest.approx(1) for weights in STYLES.values())
    assert max(STYLES["easy"], key=STYLES["easy"].__getitem__) == "worked"
    assert STYLES["hard"]["quick"] > 0.5  # so a greedy completion of a hard question is a quick one


def test_only_answers_are_learned_and_they_end_with_eos() -> None:
    tokenizer = build_tokenizer()
    for document in Corpus(seed=1).answers(50):
        ids, labels = encode(tokenizer, document)
        prompt = len(document[0].text)
        assert labels == [-100] * prompt + ids[prompt:]
        assert ids[-1] == EOS_ID


def test_training_is_deterministic() -> None:
    recipe = replace(Recipe().scaled(3), warmup_steps=1)
    before = torch.get_num_threads()
    try:
        models = [train(recipe)[0] for _ in range(2)]
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
