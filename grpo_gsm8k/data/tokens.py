"""Tokenized examples on disk: Parquet shards, and a manifest with their tokenizer and prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.errors import IntegrityError, UserError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import refuse_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.config import PromptConfig

KIND = "grpo_gsm8k.tokens"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),  # null: all response tokens, as in folders from before this column
        ("rejected_ids", pa.list_(pa.int32())),  # null: not a pair, as in folders from before this column
    ]
)
TokenSplit = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its target response with the end token; int32 [P] and [R].

    `mask`, bool [R], marks the response tokens that are trained on; None for all. The others are a conversation's turns
    between those of the assistant. `rejected_ids` is the worse response of a pair, int32; None for a single response.
    """

    id: str
    prompt_ids: np.ndarray
    response_ids: np.ndarray
    mask: np.ndarray | None = None
    rejected_ids: np.ndarray | None = None

    @property
    def trained_tokens(self) -> int:
        """Number of tokens that the loss covers."""
        rejected = 0 if self.rejected_ids is None else len(self.rejected_ids)
        return rejected + (len(self.response_ids) if self.mask is None else int(self.mask.sum()))

    @property
    def all_ids(self) -> list[np.ndarray]:
        """Its prompt and its one or two responses."""
        return [self.prompt_ids, self.response_ids, *([] if self.rejected_ids is None else [self.rejected_ids])]


def tokenizer_hash(tokenizer: Any) -> str:
    """Return a digest of everything that determines the ids of a text, and of the end token."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for transient in ("padding", "truncation"):  # options of the last encoding call
        backend.pop(transient, None)
    text = json.dumps([backend, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_shards(folder: Path, split: TokenSplit, examples: Sequence[Example], shard_items: int) -> None:
    """Write `<split>-<number>.parquet` files of at most `shard_items` examples into an existing folder."""
    for number, start in enumerate(range(0, len(examples), shard_items)):
        part = examples[start : start + shard_items]
        columns = {
            "id": [e.id for e in part],
            "prompt_ids": [e.prompt_ids for e in part],
            "response_ids": [e.response_ids for e in part],
            "mask": [e.mask for e in part],
            "rejected_ids": [e.rejected_ids for e in part],
        }
        pq.write_table(pa.table(columns, schema=_SCHEMA), folder / f"{split}-{number:05d}.parquet")


def read_shards(folder: Path, split: TokenSplit) -> list[Example]:
    """Read all examples of a split in the order in which they were written."""
    examples: list[Example] = []
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        table = pq.read_table(path, schema=_SCHEMA)
        prompts, responses = (_arrays(table[name].combine_chunks()) for name in ("prompt_ids", "response_ids"))
        masks = [None if mask is None else np.asarray(mask, dtype=np.bool_) for mask in table["mask"].to_pylist()]
        rejected = [
            None if ids is None else np.asarray(ids, dtype=np.int32) for ids in table["rejected_ids"].to_pylist()
        ]
        examples += map(Example, table["id"].to_pylist(), prompts, responses, masks, rejected)
    return examples


def check_pairs(folder: Path, examples: Sequence[Example], wanted: bool) -> None:
    """Raise UserError unless all examples are pairs (`wanted`), or none is."""
    for example in examples:
        if wanted and example.rejected_ids is None:
            raise UserError(
                f"{folder}: {example.id} has no rejected response, sft.loss=dpo needs pairs: run command=preprocess "
                "with preprocess.source=pairs, or with a file of prompt, chosen and rejected"
            )
        if not wanted and example.rejected_ids is not None:
            raise UserError(f"{folder}: {example.id} is a pair of responses: set sft.loss=dpo")


def trained_lengths(folder: Path) -> list[int]:
    """Return the number of tokens of every training example that the loss covers, including end tokens."""
    return [example.trained_tokens for example in read_shards(folder, "train")]


def write_manifest(folder: Path, tokenizer: Any, prompt: PromptConfig, made: Mapping[str, Any]) -> None:
    """Write the manifest of a finished folder; `made` records its source, settings and dropped examples."""
    extra = {
        "kind": KIND,
        "tokenizer": tokenizer_hash(tokenizer),
        "prompt": prompt.model_dump(mode="json"),
        "made": dict(made),
    }
    checksums.write_manifest(folder, extra)


def verify(folder: Path) -> dict[str, Any]:
    """Verify all checksums and return the manifest. Raises UserError with the command that rebuilds the folder."""
    refuse_link(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: run command=preprocess with the same settings first")
    try:
        manifest = checksums.verify(folder)
    except IntegrityError as error:
        raise UserError(f"{error}: run command=preprocess again") from None
    if manifest.get("kind") != KIND:
        raise UserError(f"{folder} was not made by command=preprocess: set preprocess.folder to another name")
    return manifest


def check_made_for(folder: Path, manifest: Mapping[str, Any], tokenizer: Any, prompt: PromptConfig) -> None:
    """Raise UserError unless the folder was made with this tokenizer and this prompt."""
    if manifest["tokenizer"] != tokenizer_hash(tokenizer):
        raise UserError(
            f"{folder} was made with a tokenizer other than that of model.path: run command=preprocess with this model"
        )
    wanted = prompt.model_dump(mode="json")
    # An older folder has no value for a newer key; it was made with that key's default.
    defaults = {key: field.default for key, field in type(prompt).model_fields.items() if not field.is_required()}
    for key, value in (defaults | manifest["prompt"]).items():
        if wanted.get(key) != value:
            raise UserError(
                f"{folder} was made with prompt.{key}={value!r}, now prompt.{key}={wanted.get(key)!r}: run "
                "command=preprocess with this prompt"
            )


def _arrays(column: pa.ListArray) -> list[np.ndarray]:
    values = column.flatten().to_numpy()
    offsets = column.offsets.to_numpy()
    return [values[a:b] for a, b in zip(offsets - offsets[0], (offsets - offsets[0])[1:], strict=False)]
