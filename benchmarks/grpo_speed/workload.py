"""What both sides train on: one model, the same prompts, one reward function, completions of one length."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

GROUP_FILE = "problems.jsonl"
REWARD_FILE = "reward.py"
VALIDATION, TEST = 2, 1  # problems that our run sets aside
# The question is a hundred characters long, so a character tokenizer gives prompts of about the length of GSM8K's.
QUESTION = "A shop sells {a} notebooks in the morning and {b} in the afternoon. How many notebooks does it sell in all?"
REWARD = '''"""A reward that differs for almost every completion, so that no group is left out of an update."""

import zlib


def spread(item):
    """Return a number from 0 to 1 that the text decides."""
    return zlib.crc32(item.text.encode()) / 2**32
'''


@dataclass(frozen=True, slots=True)
class Size:
    """Size of one update, and the model's shape by its name in `random_models.SHAPES`."""

    model: str
    prompts: int
    group: int
    tokens: int  # of each completion
    micro: int  # completions per backward pass of TRL

    @property
    def completions(self) -> int:
        """Completions per update."""
        return self.prompts * self.group


FULL = Size("smollm2-135m", prompts=8, group=8, tokens=96, micro=8)
SMALL = Size("tiny", prompts=2, group=2, tokens=16, micro=2)


def spread(text: str) -> float:
    """Return the reward of a text, the one that `REWARD` defines for our run."""
    return zlib.crc32(text.encode()) / 2**32


def write_problems(folder: Path, size: Size) -> None:
    """Write the problems, all of the same length, and the reward function of our run."""
    with (folder / GROUP_FILE).open("w", encoding="utf-8") as file:
        for i in range(size.prompts + VALIDATION + TEST):
            a, b = 100 + 7 * i, 200 + 3 * i
            row = {"question": QUESTION.format(a=a, b=b), "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}
            file.write(json.dumps(row) + "\n")
    (folder / REWARD_FILE).write_text(REWARD, encoding="utf-8")


def write_model(folder: Path, size: Size) -> Path:
    """Write a model of the size's shape with random float32 weights, which never ends a completion."""
    from benchmarks.random_models import write_random_model

    write_random_model(size.model, folder, dtype="float32")
    suppress_end(folder)
    return folder


def suppress_end(folder: Path) -> None:
    """Change the weights so that the end of the sequence is next to impossible, for any engine.

    One value is added to every row of the embedding, which is also the head. After the final norm every hidden state
    then has the same sign there, and the end's row gets a large value of the opposite sign: its logit is tens below
    all others, which keep their differences.
    """
    from safetensors.torch import load_file, save_file

    from benchmarks.random_models import EOS, PAD

    file = folder / "model.safetensors"
    tensors = load_file(file)
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:, 0] = SHARED
    embedding[[PAD, EOS], 0] = -AWAY
    save_file(tensors, file, metadata={"format": "pt"})


SHARED = 0.5  # as large as the norm of a random row of 576 values with a standard deviation of 0.02
AWAY = 5.0
