"""The start of a learner, of either kind of run: when it says that it is ready, and what it loads or restores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.config.gpu_shares import is_shared
from grpo_gsm8k.learner import setup
from grpo_gsm8k.learner.rank_process import start_ranks
from grpo_gsm8k.learner.validation import Validation
from grpo_gsm8k.transport.protocol import Ready, Resumed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.learner.checkpoint import TrainerState
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.task import Item, Task
    from grpo_gsm8k.learner.update import Optimizers


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """Models and optimizers on all ranks, validations, and the state of the checkpoint that the run continues from."""

    models: Models
    optimizers: Optimizers
    ranks: Ranks
    validation: Validation
    state: TrainerState | None

    @property
    def start(self) -> int:
        """Number of updates that are done."""
        return self.state.step if self.state else 0

    @property
    def unvalidated(self) -> tuple[int, ...]:
        """Versions whose validation is not finished."""
        return self.state.pending_validations if self.state else (0,)


def open_run(spec: LearnerSpec, client: Client, task: Task, validated: Sequence[Item], updates: int) -> OpenedRun:
    """Report Ready, load the weights or restore a checkpoint on all ranks, and report what is resumed.

    Everything that can be checked without an engine has to be checked before. On a shared GPU the weights come first,
    because Ready starts the engine, which must find its share free. `validated` are the items of validations,
    `updates` is the number of updates of the whole run.
    """
    shared = is_shared(spec.config)
    resumed = setup.find_checkpoint(spec)
    if not shared:
        client.report(Ready())
    folder = resumed.folder if resumed else None
    ranks = start_ranks(spec, folder)
    models, optimizers = setup.open_trained(
        spec.config, spec.model_folder, spec.critic_folder, folder, ranks, spec.teacher_folder
    )
    validation = Validation(client, task, validated, spec.config, updates, spec.run_folder / "validation")
    if resumed:
        setup.restore(resumed, models, optimizers, validation)
    ranks.join(models.parameters)
    if shared:
        client.report(Ready())
    opened = OpenedRun(models, optimizers, ranks, validation, resumed.state if resumed else None)
    client.report(Resumed(opened.start, updates))
    return opened
