"""Exceptions and exit codes: a `UserError` exits with 2, any other `LabError` with 1."""

from __future__ import annotations

import re

EXIT_REGRESSION = 3  # a model is worse than its baseline
EXIT_OVER_BUDGET = 4  # the run's budget is spent


class LabError(Exception):
    """Base class of this project's errors; the text is one line, also where it quotes a user's text or a library's."""

    def __init__(self, text: object = "") -> None:
        super().__init__(one_line(str(text)))


class UserError(LabError):
    """Invalid configuration or input; the text names the key or line, and the fix."""


class UnknownShapeError(UserError):
    """The memory of this model cannot be computed, because its layers have unknown names."""


class ModelMismatchError(UserError):
    """Learner, Hugging Face and engine do not compute the same model."""


class WeightsError(LabError):
    """Published weights are incomplete, damaged, do not match the model, or were not loaded."""


class IntegrityError(LabError):
    """A file or folder is damaged; the text names each file and the reason."""


class CheckpointError(LabError):
    """A checkpoint is missing, damaged or does not belong to this run."""


class WorkerError(LabError):
    """A worker process exceeded its restart limit."""


class MemoryLimitError(LabError):
    """The learner's device does not have enough memory for a single sequence."""


class NonFiniteError(LabError):
    """Too many optimizer steps in a row had a non-finite gradient."""


class DiskFullError(LabError):
    """A file could not be written because its disk is full; the text names the file and the free bytes."""


def one_line(text: str) -> str:
    """Return a text on one line: line breaks and tabs become a space, other unprintable characters their escape."""
    parts = (part.strip() for part in re.split(r"[^\S ]+", text))
    joined = " ".join(part for part in parts if part)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)
