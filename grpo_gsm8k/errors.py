"""Errors with a meaning for the exit code: a `UserError` is 2, every other `LabError` is 1."""

from __future__ import annotations

EXIT_REGRESSION = 3  # a model became worse than its baseline
EXIT_OVER_BUDGET = 4


class LabError(Exception):
    """Base of every error that this project raises on purpose; its text is one line."""


class UserError(LabError):
    """Bad configuration or input. The text names the key or the line, and the fix."""


class WeightsError(LabError):
    """A weights folder is incomplete, damaged, does not fit, or did not become live."""


class IntegrityError(LabError):
    """A file or folder is not what was written; the text names each file and the reason."""


class CheckpointError(LabError):
    """A checkpoint is missing, damaged or does not belong to this run."""


class WorkerError(LabError):
    """A worker process failed more often than its restart limit allows."""


class MemoryLimitError(LabError):
    """The learner's device has too little memory for a single sequence."""


class NonFiniteError(LabError):
    """Too many optimizer steps in a row had a non-finite gradient."""
