"""One training run from a configuration to an exit code: preparation, supervision, summary."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k import models
from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.prepare import DataFolder, ensure
from grpo_gsm8k.data.schedule import plan_updates
from grpo_gsm8k.errors import EXIT_OVER_BUDGET, EXIT_REGRESSION, UserError
from grpo_gsm8k.grading import rewards
from grpo_gsm8k.learner.spec import LearnerSpec
from grpo_gsm8k.orchestrator.budget import Meter
from grpo_gsm8k.orchestrator.regression import RegressionSuite
from grpo_gsm8k.orchestrator.supervisor import Limits, Outcome, Spawners, Supervisor
from grpo_gsm8k.preflight import gate
from grpo_gsm8k.runtime.actor_process import engine_spec, spawn_actor, surroundings
from grpo_gsm8k.runtime.process import Deadlines, Deliver, Worker, spawn
from grpo_gsm8k.runtime.worker import learner_main
from grpo_gsm8k.start_model import pin_model, start_folder
from grpo_gsm8k.tracking import console, manifest, run_folder
from grpo_gsm8k.tracking.ledger import Ledger
from grpo_gsm8k.tracking.tracker import OVER_BUDGET, Tracker
from grpo_gsm8k.tracking.wandb_writer import check_wandb
from grpo_gsm8k.transport.weights_store import WeightsStore

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.cost import Estimate
    from grpo_gsm8k.tracking.run_folder import RunFolder


def run_training(config: Config) -> int:
    """Prepare, train by the command's method, summarise.

    Raises LabError; returns 0, 3 when a regression ended the run, 4 when its budget did, or 128 + the signal that did.
    """
    rewards.validate_reward_weights(config.policy_gradient.rewards)
    check_wandb(config.wandb)
    machine = gate.inspect_machine(config)
    config = pin_model(config)
    data = ensure(config.data, config.artifacts)
    model_folder = start_folder(config)
    critic_path = config.policy_gradient.critic.path
    critic_folder = models.resolve_model(critic_path, None, config.artifacts) if critic_path else model_folder
    check_context(config, models.context_length(model_folder))
    updates = total_updates(config)
    estimate = gate.check(config, machine, model_folder, updates)
    run, step = open_run(config)
    with WeightsStore(config.shm, run.path) as store:
        manifest.write_config(run, config.model_dump(mode="json"))
        manifest.write_manifest(run, config.model_dump(mode="json"))
        outcome = _supervise(Plan(config, data, model_folder, critic_folder, run, step, store), updates, estimate)
    if outcome.signal:
        return 128 + outcome.signal  # at once: who sends signals may not wait
    from grpo_gsm8k.report.write_report import report_of_run  # lazy: drawing takes a second to import

    print(f"{'report':<18} {report_of_run(run.path)}")
    if outcome.over_budget:
        print(f"{OVER_BUDGET}, after a checkpoint: go on with {config.command}.resume_from=latest", file=sys.stderr)
        return EXIT_OVER_BUDGET
    return EXIT_REGRESSION if outcome.regressed else 0


def total_updates(config: Config) -> int:
    """Policy updates, or those that the tokens of supervised fine-tuning are good for."""
    if config.command != "sft":
        return config.policy_gradient.updates
    folder = config.artifacts / config.preprocess.folder
    tokens.verify(folder)
    lengths = tokens.response_lengths(folder)
    return len(plan_updates(lengths, config.sft.min_tokens_per_update, config.sft.epochs, config.seed))


def check_context(config: Config, context: int) -> None:
    """The engine's context must fit the model, and leave room for a prompt. Raises UserError."""
    actor, limit = config.actor, config.training.max_new_tokens
    if actor.max_model_len > context:
        raise UserError(f"actor.max_model_len={actor.max_model_len} exceeds the model's context of {context}: lower it")
    if limit >= actor.max_model_len:
        raise UserError(
            f"{config.command}.max_new_tokens={limit} leaves no room for a prompt in "
            f"actor.max_model_len={actor.max_model_len}: lower the former or raise the latter"
        )


def open_run(config: Config) -> tuple[RunFolder, int | None]:
    """A new run folder, or the one to resume with its step (None: the newest that is valid)."""
    resume_from = config.training.resume_from
    if resume_from is None:
        return run_folder.create(config.artifacts, config.name), None
    run, step = run_folder.find(config.artifacts, resume_from)
    # Only a checkpoint that was named is insisted upon; of a run, the learner takes the newest whose checksums hold.
    return run, step if Path(resume_from).name.startswith("step_") else None


@dataclass(frozen=True)
class Plan:
    """Everything that is needed to start the workers of one run, any number of times."""

    config: Config
    data: DataFolder
    model_folder: Path
    critic_folder: Path
    run: RunFolder
    resume_step: int | None
    store: WeightsStore

    def spawn_actor(self, index: int, deliver: Deliver) -> Worker:
        """A new actor process for place `index`."""
        lora = self.config.learner.lora
        rank = lora.rank if lora.enabled and self.config.actor.lora == "adapter" else 0
        spec = engine_spec(self.config, self.model_folder, rank, self._versions_at_once())
        return spawn_actor(self.config, spec, self.run.logs, index, deliver)

    def spawn_learner(self, incarnation: int, wandb_run_id: str | None, deliver: Deliver) -> Worker:
        """A new learner process; all but the first go on from the newest valid checkpoint."""
        learner = self.config.learner
        spec = LearnerSpec(
            config=self.config,
            model_folder=self.model_folder,
            critic_folder=self.critic_folder,
            data=self.data,
            run_folder=self.run.path,
            weights_root=self.store.incarnation_folder(incarnation),
            incarnation=incarnation,
            resume_step=self.resume_step if incarnation == 0 else None,
            wandb_run_id=wandb_run_id,
        )
        return spawn(
            "learner",
            learner_main,
            (surroundings(self.run.logs, "learner", learner.cores), spec),
            {"OMP_NUM_THREADS": str(learner.threads), "TOKENIZERS_PARALLELISM": "false"},
            Deadlines(learner.start_timeout_s, learner.progress_timeout_s),
            deliver,
        )

    def _versions_at_once(self) -> int:
        """Adapters that the engine holds: those with requests under way, and the one that is loaded beside them."""
        if self.config.command == "sft":
            return 3  # two validations, see learner.sft
        return self.config.policy_gradient.max_staleness + 2


def _supervise(plan: Plan, total: int, estimate: Estimate | None) -> Outcome:
    config, run = plan.config, plan.run
    progress = console.open_console(total)
    tracker = Tracker(run, config.wandb, config.model_dump(mode="json"), total, 0, None, progress)
    meter = Meter(config.budget, estimate, tracker.wall_seconds)
    ledger = Ledger(run.ledger_jsonl)
    spawners = Spawners(
        actor=plan.spawn_actor,
        learner=lambda incarnation, deliver: plan.spawn_learner(incarnation, tracker.wandb_run_id, deliver),
        actors=config.actor.replicas,
    )
    limits = Limits(config.actor.max_restarts, config.learner.max_restarts, config.stop_grace_s)
    suite = RegressionSuite(config, run, plan.model_folder, tracker)
    status = "failed"
    try:
        outcome = Supervisor(spawners, limits, tracker, ledger, meter, suite).run()
        early = "interrupted" if outcome.signal else OVER_BUDGET if outcome.over_budget else "stopped early"
        status = "done" if outcome.step == total else early
    finally:
        suite.close()
        ledger.close()
        tracker.annotate(meter.summary())
        tracker.close(status)
    console.print_summary(tracker.summary(), run.path)
    return outcome
