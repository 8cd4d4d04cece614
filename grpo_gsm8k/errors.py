"""Exceptions and exit codes: a `UserError` exits with 2, any other `LabError` with 1."""

from __future__ import annotations

EXIT_REGRESSION = 3  # a model is worse than its baseline
EXIT_OVER_BUDGET = 4  # the run's budget is spent


class LabError(Exception):
    """Base class of this project's errors; the text is one line."""


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
