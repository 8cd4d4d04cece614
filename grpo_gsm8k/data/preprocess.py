"""`command=preprocess`: prompts and responses as token ids, ready for supervised fine-tuning."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.data.prompts import encode_prompt, separator
from grpo_gsm8k.data.responses import TrainingText, own_answers, training_texts
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.grading import answers
from grpo_gsm8k.models import resolve_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.tokens import Example

TOO_LONG = "too long"
NOT_WRITABLE = "characters that the tokenizer does not have"
END_INSIDE = "end token inside the response"


def preprocess_texts(config: Config) -> int:
    """Write the token folder that `command=sft` reads, and print what is in it."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    data = ensure(config.data, config.artifacts)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(config.model.path, config.model.revision, config.artifacts))
    source, texts = training_texts(config, data)
    target = config.artifacts / config.preprocess.folder
    _refuse_foreign(target)
    train, dropped = encode_examples(config, texts, tokenizer)
    if not train:
        raise UserError(f"nothing of {source} is left to learn from: {_reasons(dropped)}")
    val, val_dropped = encode_examples(config, own_answers(config, load_split(data, "val")), tokenizer)
    made = {
        "source": source,
        "dropped": dict(dropped),
        "val_dropped": dict(val_dropped),
        "unreadable": unreadable(config, texts),
        "truncated": 0,  # nothing is ever cut
        "lengths": {"prompt": percentiles(e.prompt_ids for e in train), "response": _response_percentiles(train)},
    }
    with written_aside(target) as folder:
        tokens.write_shards(folder, "train", train, config.preprocess.shard_items)
        tokens.write_shards(folder, "val", val, config.preprocess.shard_items)
        tokens.write_manifest(folder, tokenizer, config.prompt, made)
    print("\n".join(_report(target, made, train, val)))
    return 0


def encode_examples(
    config: Config, texts: Sequence[TrainingText], tokenizer: Any
) -> tuple[list[Example], Counter[str]]:
    """Examples that can be learnt, and how many texts were left out for which reason."""
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for text in texts:
        found = encode_example(config, text, tokenizer)
        if isinstance(found, str):
            dropped[found] += 1
        else:
            examples.append(found)
    return examples, dropped


def encode_example(config: Config, text: TrainingText, tokenizer: Any) -> Example | str:
    """One example, or why there is none.

    Prompt and response are tokenised apart, because the engine is given the prompt's tokens alone: a merge across the
    border would teach tokens that never follow it there.
    """
    response = separator(config.prompt) + text.response
    ids = tokenizer.encode(response, add_special_tokens=False)
    if tokenizer.eos_token_id in ids:
        return END_INSIDE
    if tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) != response:
        return NOT_WRITABLE
    prompt_ids = encode_prompt(config.prompt, text.question, tokenizer)
    response_ids = np.asarray([*ids, tokenizer.eos_token_id], dtype=np.int32)
    if len(prompt_ids) + len(response_ids) > config.preprocess.max_tokens and config.preprocess.overlong == "drop":
        return TOO_LONG
    return tokens.Example(text.id, prompt_ids, response_ids)


def unreadable(config: Config, texts: Sequence[TrainingText]) -> int:
    """Responses in which the answer format of the prompt finds no number: a model that learns them scores nothing."""
    fmt, locale = config.prompt.answer_format, config.prompt.locale
    return sum(not answers.grade(text.response, "0", fmt, locale).well_formed for text in texts)


def percentiles(arrays: Any) -> dict[str, int]:
    """Lengths in tokens at 50, 90, 99 and 100 %."""
    lengths = [len(ids) for ids in arrays]
    return {f"p{q}": int(np.percentile(lengths, q, method="higher")) for q in (50, 90, 99, 100)}


def _response_percentiles(examples: Sequence[Example]) -> dict[str, int]:
    return percentiles(e.response_ids for e in examples)


def _report(target: Path, made: dict[str, Any], train: Sequence[Example], val: Sequence[Example]) -> list[str]:
    lines = [f"{target}: {len(train)} train and {len(val)} validation examples from {made['source']}"]
    for part, lengths in made["lengths"].items():
        lines.append(f"  {part} tokens: " + ", ".join(f"{name} {value}" for name, value in lengths.items()))
    if made["dropped"]:
        lines.append(f"  left out of train: {_reasons(made['dropped'])}")
    if made["val_dropped"]:
        lines.append(f"  left out of validation: {_reasons(made['val_dropped'])}")
    if made["unreadable"]:
        lines.append(
            f"  warning: {made['unreadable']} responses have no answer in this prompt's format, so a model that writes "
            "like them scores nothing: choose another prompt.answer_format"
        )
    return lines


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the source is empty"


def _refuse_foreign(target: Path) -> None:
    """Replacing deletes, so nothing but an earlier result of this command may stand there."""
    if target.exists() and not (target / "manifest.json").is_file():
        raise UserError(f"{target} was not made by command=preprocess: set preprocess.folder to another name")
