"""The embedded model: its tokenizer, its corpus, the shipped folder, and that training is reproducible."""

from __future__ import annotations

import hashlib
import json
import random
import string

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.tiny import MODEL_FOLDER
from grpo_gsm8k.tiny.corpus import Corpus, quick_error, steps
from grpo_gsm8k.tiny.probe import is_right
from grpo_gsm8k.tiny.problems import QUESTION, demo_problems, from_expression, held_out
from grpo_gsm8k.tiny.tokenizer import CHARACTERS, build_tokenizer
from grpo_gsm8k.tiny.train import Recipe, encode, train


@pytest.fixture(scope="module")
def shipped_tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def test_tokenizer_round_trips_exactly(shipped_tokenizer):
    rng = random.Random(0)
    texts = ["", " ", "\n", "  two  spaces , and . \n\n#### -12 ", CHARACTERS, "<eos", "'s n't ."]
    texts += ["".join(rng.choices(CHARACTERS, k=rng.randrange(1, 80))) for _ in range(200)]
    for text in texts:
        ids = shipped_tokenizer(text)["input_ids"]
        assert len(ids) == len(text)
        assert shipped_tokenizer.decode(ids) == text


def test_tokenizer_specials(shipped_tokenizer):
    assert (shipped_tokenizer.pad_token_id, shipped_tokenizer.eos_token_id, shipped_tokenizer.unk_token_id) == (0, 1, 2)
    assert shipped_tokenizer("é")["input_ids"] == [2]
    assert shipped_tokenizer.decode([20, 1], skip_special_tokens=True) == shipped_tokenizer.decode([20])
    assert shipped_tokenizer.apply_chat_template([{"role": "user", "content": "1+1"}], tokenize=False) == "1+1"


def test_shipped_tokenizer_is_the_one_the_code_builds(shipped_tokenizer):
    assert shipped_tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert shipped_tokenizer.get_vocab().keys() >= set(string.digits + "#=+-\n ")


def test_folder_is_small_and_matches_its_record():
    weights = (MODEL_FOLDER / "model.safetensors").read_bytes()
    made_by = json.loads((MODEL_FOLDER / "MADE_BY.json").read_text())
    assert len(weights) < 5_000_000
    assert hashlib.sha256(weights).hexdigest() == made_by["weights_sha256"]
    recipe = Recipe()
    assert made_by["recipe"] == {field: getattr(recipe, field) for field in made_by["recipe"]}
    assert made_by["command"] == f"python -m grpo_gsm8k.tiny.train --seed {recipe.seed} --steps {recipe.steps}"


def test_folder_loads_and_stops_by_eos(shipped_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER).eval()
    assert model.config.vocab_size == len(shipped_tokenizer)
    assert model.dtype == torch.float32
    batch = shipped_tokenizer(from_expression("3 + 45").prompt, return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=48, do_sample=False)[0, batch["input_ids"].shape[1] :].tolist()
    assert ids[-1] == model.generation_config.eos_token_id == shipped_tokenizer.eos_token_id


def test_problem_matches_reasoning_gym():
    reasoning_gym = pytest.importorskip("reasoning_gym")
    items = reasoning_gym.create_dataset(
        "chain_sum", size=64, seed=0, min_terms=2, max_terms=3, min_digits=1, max_digits=2
    )
    for item, problem in zip(items, demo_problems(0, 64), strict=True):
        assert item["question"] == QUESTION.format(expression=problem.expression)
        assert item["answer"] == str(problem.answer)


def test_steps_and_errors():
    problem = from_expression("15 - 43 - 75")
    assert steps(problem) == (["15-43=-28", "-28-75=-103"], -103)
    assert steps(problem, slip_at=0, slip=10) == (["15-43=-18", "-18-75=-93"], -93)
    assert quick_error(problem) == -28
    assert [quick_error(from_expression(text)) for text in ("58 + 26", "44 - 27", "23 - 60", "7 + 8")] == [
        74,
        23,
        -43,
        15,
    ]


def test_is_right_needs_the_final_line():
    problem = from_expression("7 + 8")
    assert is_right(problem, " 7+8=15\n#### 15")
    assert is_right(problem, " #### 15")
    assert not any(
        is_right(problem, text) for text in (" 7+8=15", " The answer is 15.", " #### 151", "#### 15\n#### 16")
    )


def test_corpus_is_seeded_and_free_of_held_out_expressions():
    documents = Corpus(seed=3, drill_share=0.5).documents(3000)
    assert documents == Corpus(seed=3, drill_share=0.5).documents(3000)
    banned = held_out()
    questions = {document.prompt.split(": ")[-1].partition(" =")[0] for document in documents if document.prompt}
    assert len(questions) > 1000
    assert not questions & banned
    table = {f"{left} {sign} {right}" for left in range(10) for right in range(10) for sign in "+-"}
    for document in documents:
        for line in document.text.strip().splitlines():
            left, equals, _ = line.partition("=")
            if equals:
                at = max(left.rfind("+"), left.rfind("-"))
                assert f"{left[:at]} {left[at]} {left[at + 1 :]}" not in banned - table


def test_documents_end_with_eos_and_hide_the_prompt():
    tokenizer = build_tokenizer()
    for document in Corpus(seed=1, drill_share=0.3).documents(50):
        ids, labels = encode(tokenizer, document)
        assert len(ids) == len(labels)
        assert ids[-1] == labels[-1] == tokenizer.eos_token_id
        assert tokenizer.decode([token for token in labels if token >= 0][:-1]) == document.text


def test_training_is_deterministic():
    recipe = Recipe(steps=3, batch_size=8, warmup_steps=1)
    (first, _, facts), (second, _, again) = train(recipe), train(recipe)
    assert facts == again
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
