"""Change the number of actors of a run that goes on, as `command=scale` asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import scale_request

if TYPE_CHECKING:
    from grpo_gsm8k.runtime.actor_pool import ActorPool
    from grpo_gsm8k.tracking.tracker import Tracker


def scale(pool: ActorPool, tracker: Tracker) -> None:
    """Do what a request asks for, if there is one, and answer it; a problem does not end the run."""
    try:
        request = scale_request.take(tracker.run)
    except UserError as error:
        tracker.note(str(error))
        return
    if request is None:
        return
    before, problem = pool.size, ""
    try:
        pool.resize(request.replicas)
    except UserError as error:
        problem = str(error)
    tracker.event("actors_scaled", before=before, now=pool.size, problem=problem)
    tracker.note(problem or f"{pool.size} engines from now on ({before} before)")
    scale_request.answer(tracker.run, request, problem)
