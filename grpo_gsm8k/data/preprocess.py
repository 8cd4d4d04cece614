"""`command=preprocess`: tokenizes prompts and responses for supervised fine-tuning."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.conversations import Conversation, encode_pieces, pieces_of
from grpo_gsm8k.data.preference_rows import ConversationPair, PairText
from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.data.prompts import encode_prompt, separator, start_ids
from grpo_gsm8k.data.responses import TrainingText, WholeText, answer_in, own_answers, training_texts
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.models import resolve_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.responses import TrainingRow
    from grpo_gsm8k.data.tokens import Example

TOO_LONG = "too long"
NOT_WRITABLE = "characters that the tokenizer does not have"
END_INSIDE = "end token inside the response"
EQUAL = "pairs of equal responses"
_AS_IT_IS = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}  # options of decode


def preprocess_texts(config: Config) -> int:
    """Write the token folder that `command=sft` reads, and print a summary."""
    from transformers import AutoTokenizer  # lazy: it takes seconds

    data = ensure(config.data, config.artifacts, config.prompt.locale, config.prompt.answer_kind)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(config.model.path, config.model.revision, config.artifacts))
    source, texts = training_texts(config, data)
    target = config.artifacts / config.preprocess.folder
    _refuse_foreign(target)
    train, dropped = encode_examples(config, texts, tokenizer)
    if not train:
        raise UserError(f"no example of {source} is left to train on: {_reasons(dropped)}")
    val, val_dropped = encode_examples(config, own_answers(config, load_split(data, "val")), tokenizer)
    made = {
        "source": source,
        "dropped": dict(dropped),
        "val_dropped": dict(val_dropped),
        "unreadable": unreadable(config, texts),
        "truncated": 0,  # examples are dropped or kept, never truncated
        "lengths": {"prompt": percentiles(e.prompt_ids for e in train), "response": _response_percentiles(train)},
    }
    with written_aside(target) as folder:
        tokens.write_shards(folder, "train", train, config.preprocess.shard_items)
        tokens.write_shards(folder, "val", val, config.preprocess.shard_items)
        tokens.write_manifest(folder, tokenizer, config.prompt, made)
    print("\n".join(_report(target, made, train, val)))
    return 0


def encode_examples(config: Config, texts: Sequence[TrainingRow], tokenizer: Any) -> tuple[list[Example], Counter[str]]:
    """Return the usable examples, and the number of dropped texts by reason."""
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for text in texts:
        found = encode_example(config, text, tokenizer)
        if isinstance(found, str):
            dropped[found] += 1
        else:
            examples.append(found)
    return examples, dropped


def encode_example(config: Config, row: TrainingRow, tokenizer: Any) -> Example | str:
    """Return one example, or the reason for dropping it."""
    match row:
        case TrainingText():
            example = _encode_response(config, row, tokenizer)
        case PairText():
            texts = (TrainingText(row.id, row.question, text) for text in (row.chosen, row.rejected))
            example = _pair_of(*(_encode_response(config, text, tokenizer) for text in texts))
        case ConversationPair():
            example = _pair_of(*(_last_turn(config, side, tokenizer) for side in (row.chosen, row.rejected)))
        case Conversation():
            example = _encode_conversation(config, row, tokenizer)
        case WholeText():
            example = _encode_whole(row, tokenizer)
    if isinstance(example, str):
        return example
    too_long = len(example.prompt_ids) + max(map(len, example.all_ids[1:])) > config.preprocess.max_tokens
    return TOO_LONG if too_long and config.preprocess.overlong == "drop" else example


def _encode_response(config: Config, text: TrainingText, tokenizer: Any) -> Example | str:
    """Encode a prompt and its response, or return the reason for dropping them.

    They are tokenized separately, because the engine gets the tokens of the prompt only: a token merged across the
    boundary would never follow that prompt in generation.
    """
    response = separator(config.prompt) + text.response
    ids = tokenizer.encode(response, add_special_tokens=False)
    if tokenizer.eos_token_id in ids:
        return END_INSIDE
    if tokenizer.decode(ids, **_AS_IT_IS) != response:
        return NOT_WRITABLE
    prompt_ids = encode_prompt(config.prompt, text.question, tokenizer)
    response_ids = np.asarray([*ids, tokenizer.eos_token_id], dtype=np.int32)
    return tokens.Example(text.id, prompt_ids, response_ids)


def _pair_of(chosen: Example | str, rejected: Example | str) -> Example | str:
    """Join two examples with the same prompt, or return the reason for dropping one of them."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        return chosen if isinstance(chosen, str) else str(rejected)
    assert np.array_equal(chosen.prompt_ids, rejected.prompt_ids)
    if np.array_equal(chosen.response_ids, rejected.response_ids):
        return EQUAL
    return replace(chosen, rejected_ids=rejected.response_ids)


def _last_turn(config: Config, conversation: Conversation, tokenizer: Any) -> Example | str:
    """Encode a conversation whose last turn is the response, and all before it the prompt."""
    example = _encode_conversation(config, conversation, tokenizer)
    if isinstance(example, str) or example.mask is None:
        return example
    start = int(np.flatnonzero(~example.mask)[-1]) + 1
    prompt_ids = np.concatenate([example.prompt_ids, example.response_ids[:start]])
    return tokens.Example(example.id, prompt_ids, example.response_ids[start:])


def _encode_conversation(config: Config, conversation: Conversation, tokenizer: Any) -> Example | str:
    """Encode a conversation, or return the reason for dropping it. Raises UserError if it cannot be rendered exactly.

    As with prompts and responses, no token reaches across the beginning of an assistant's turn.
    """
    if not config.prompt.chat:
        raise UserError(f"{conversation.where}: messages need the chat template: set prompt=chat")
    pieces = pieces_of(conversation, tokenizer)
    ids, mask = encode_pieces(pieces, tokenizer)
    if tokenizer.decode(ids.tolist(), **_AS_IT_IS) != "".join(piece.text for piece in pieces):
        return NOT_WRITABLE
    ends = np.isin(ids, [ids[-1], tokenizer.eos_token_id]) & mask
    if int(ends.sum()) != sum(piece.trained for piece in pieces):
        return END_INSIDE
    start = int(mask.argmax())
    return tokens.Example(conversation.id, ids[:start], ids[start:], None if mask[start:].all() else mask[start:])


def _encode_whole(row: WholeText, tokenizer: Any) -> Example | str:
    """Encode a text and its end token: all is trained on but the first token, which nothing predicts."""
    ids = tokenizer.encode(row.text, add_special_tokens=False)
    if tokenizer.eos_token_id in ids:
        return END_INSIDE
    if tokenizer.decode(ids, **_AS_IT_IS) != row.text:
        return NOT_WRITABLE
    start = start_ids(tokenizer)
    ids = np.asarray([*([] if ids[: len(start)] == start else start), *ids, tokenizer.eos_token_id], dtype=np.int32)
    return tokens.Example(row.id, ids[:1], ids[1:])


def unreadable(config: Config, texts: Sequence[TrainingRow]) -> int:
    """Count responses without an answer in the prompt's format; a model that imitates them would score 0."""
    found = [text for text in map(answer_in, texts) if text is not None]
    with Grader(config.prompt.answer_rules) as grader:
        return sum(reading.value is None for reading in grader.read_all(found))


def percentiles(arrays: Any) -> dict[str, int]:
    """Return the 50th, 90th, 99th and 100th percentile of the lengths in tokens."""
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
            f"  warning: {made['unreadable']} responses have no answer in this prompt's format, so a model that "
            "imitates them scores 0: choose another prompt.answer_format"
        )
    return lines


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the source is empty"


def _refuse_foreign(target: Path) -> None:
    """Raise UserError if replacing `target` would delete anything but an earlier result of this command."""
    if target.exists() and not (target / "manifest.json").is_file():
        raise UserError(f"{target} was not made by command=preprocess: set preprocess.folder to another name")
