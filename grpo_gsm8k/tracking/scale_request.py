"""A request to a running training run for another number of engines, and the run's answer, as files in its folder.

Files, not a signal or a socket: they work from another container or a login node that shares the run's volume.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.files.parsing import first_problem

if TYPE_CHECKING:
    from grpo_gsm8k.tracking.run_folder import RunFolder

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """The run is to have `replicas` engines; `id` tells requests apart."""

    id: str
    replicas: int


@dataclass(frozen=True, slots=True)
class ScaleAnswer:
    """What a run did about the request `id`: empty `problem`, or why it still has the engines that it had."""

    id: str
    replicas: int
    problem: str


_REQUEST, _ANSWER = TypeAdapter(ScaleRequest), TypeAdapter(ScaleAnswer)


def ask(run: RunFolder, replicas: int, timeout_s: float) -> ScaleAnswer | None:
    """Ask a run for `replicas` engines; returns its answer, or None if there is none within `timeout_s` seconds.

    An unanswered request is withdrawn. Raises UserError if another request is waiting for its answer.
    """
    if run.scale_request.exists():
        raise UserError(f"{run.scale_request} waits for an answer: try again later, or delete it if the run is stuck")
    request = ScaleRequest(uuid.uuid4().hex, replicas)
    write_atomically(run.scale_request, json.dumps(asdict(request)))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (answer := _read_answer(run)) is not None and answer.id == request.id:
            run.scale_answer.unlink(missing_ok=True)
            return answer
        time.sleep(POLL_SECONDS)
    run.scale_request.unlink(missing_ok=True)
    return None


def take(run: RunFolder) -> ScaleRequest | None:
    """Return the request that waits for an answer, if any, and remove its file. Raises UserError for a damaged one."""
    if not run.scale_request.exists():
        return None
    try:
        request = _REQUEST.validate_python(read_json(run.scale_request))
    except ValidationError as error:
        raise UserError(f"{run.scale_request} is ignored: {first_problem(error)}") from None
    finally:
        run.scale_request.unlink(missing_ok=True)
    return request


def answer(run: RunFolder, request: ScaleRequest, problem: str) -> None:
    """Answer a request that was taken."""
    write_atomically(run.scale_answer, json.dumps(asdict(ScaleAnswer(request.id, request.replicas, problem))))


def _read_answer(run: RunFolder) -> ScaleAnswer | None:
    try:
        return _ANSWER.validate_python(read_json(run.scale_answer))
    except (FileNotFoundError, ValidationError, UserError):
        return None
