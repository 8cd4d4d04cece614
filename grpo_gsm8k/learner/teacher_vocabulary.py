"""Whether token ids mean the same to a teacher and its student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import vocabulary_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

PROBES = 16  # prompts that both tokenizers encode
FIX = "use a teacher with the tokenizer of the start model"


def check_vocabulary(teacher: Path, student: Path, tokenizer: Any, prompts: Sequence[np.ndarray]) -> None:
    """Raise UserError unless the teacher has the student's tokens, by the same ids, and a probability for each of them.

    `teacher` and `student` are model folders, `tokenizer` is the student's, `prompts` are token ids [P] that it made:
    the first ones show that both also divide texts in the same way.
    """
    try:
        other = AutoTokenizer.from_pretrained(teacher)
    except (OSError, ValueError) as error:
        raise _refused(f"the tokenizer of {teacher} cannot be read: {' '.join(str(error).split())}") from None
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if differing:
        token = differing[0]
        raise _refused(
            f"{teacher} has another vocabulary: {token!r} is token {theirs.get(token)} there and {ours.get(token)} in "
            f"{student}"
        )
    for ids in prompts[:PROBES]:
        text = tokenizer.decode(ids.tolist())
        if tokenizer.encode(text) != other.encode(text):
            raise _refused(f"{teacher} divides texts into other tokens than {student}: {text[:40]!r}")
    check_rows(vocabulary_size(teacher), vocabulary_size(student), str(teacher))


def check_rows(teacher: int | None, student: int | None, name: str) -> None:
    """Raise UserError if the teacher has fewer logits than the student, which may sample any of its own."""
    if teacher is not None and student is not None and teacher < student:
        raise _refused(f"{name} has {teacher} logits, fewer than the {student} that the start model samples from")


def _refused(reason: str) -> UserError:
    return UserError(f"policy_gradient.teacher.path: {reason}: {FIX}")
