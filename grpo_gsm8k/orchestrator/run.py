"""One training run, from configuration to exit code: preparation, supervision, summary."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k import models
from grpo_gsm8k.cluster.placement import Placement, open_placement
from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.prepare import DataFolder, ensure, load_split
from grpo_gsm8k.data.schedule import plan_updates, update_size
from grpo_gsm8k.diagnoses.run_record import machine_of
from grpo_gsm8k.errors import EXIT_OVER_BUDGET, EXIT_REGRESSION, LabError, UserError
from grpo_gsm8k.learner.architectures import check_trainable
from grpo_gsm8k.learner.spec import LearnerSpec
from grpo_gsm8k.orchestrator import resume
from grpo_gsm8k.orchestrator.budget import RunBudget
from grpo_gsm8k.orchestrator.regression import RegressionSuite
from grpo_gsm8k.orchestrator.rewards_files import read_rewards
from grpo_gsm8k.orchestrator.run_end import show_end
from grpo_gsm8k.orchestrator.start_phases import StartPhases
from grpo_gsm8k.orchestrator.supervisor import Outcome, RestartLimits, Spawners, Supervisor
from grpo_gsm8k.preflight import gate
from grpo_gsm8k.preflight.cache_sizes import CacheSizes, cache_sizes
from grpo_gsm8k.runtime.actor_process import engine_spec
from grpo_gsm8k.runtime.learner_process import spawn_learner
from grpo_gsm8k.start_model import pin_model, start_folder, teacher_folder
from grpo_gsm8k.terminal.console import open_console
from grpo_gsm8k.terminal.stage import stage
from grpo_gsm8k.tracking import manifest, run_folder
from grpo_gsm8k.tracking.ledger import Ledger
from grpo_gsm8k.tracking.tracker import OVER_BUDGET, Tracker
from grpo_gsm8k.tracking.writers import check_writers, open_writers
from grpo_gsm8k.transport.weights_store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.orchestrator.resume import SettingChange
    from grpo_gsm8k.preflight.cost import Estimate
    from grpo_gsm8k.runtime.process import Deliver, Worker
    from grpo_gsm8k.tracking.run_folder import RunFolder
    from grpo_gsm8k.transport.protocol import WeightsRef


def run_training(config: Config) -> int:
    """Prepare, train with the command's method, and summarize.

    Returns 0, 3 if a regression ended the run, 4 if its budget did, or 128 + the signal that did. Raises LabError.
    """
    rewards = None if config.training.resume_from else read_rewards(config, None)
    check_writers(config)
    machine = gate.inspect_machine(config)
    config = pin_model(config)
    with ExitStack() as stack:  # holds the lock on the run folder to the end
        resumed = stack.enter_context(resume.reopened(config)) if config.training.resume_from else None
        rewards = rewards or read_rewards(config, resumed.run if resumed else None)
        with stage("preparing the data"):
            data = ensure(config.data, config.artifacts, config.prompt.locale, config.prompt.answer_kind)
        with stage(f"getting the model {config.model.path}"):
            model_folder = start_folder(config)
        critic_path = config.policy_gradient.critic.path
        critic_folder = models.resolve_model(critic_path, None, config.artifacts) if critic_path else model_folder
        teacher = teacher_folder(config)
        for folder in {model_folder, critic_folder}:
            check_trainable(folder, config.actor.max_model_len)
        if teacher is not None:
            check_teacher(config, teacher)
        check_context(config, models.context_length(model_folder))
        updates = total_updates(config, data.train)
        problems = load_split(data, "train")
        cpu = gate.predict(config, machine, model_folder, problems)
        config = gate.decide_threads(config, machine, cpu)
        estimate = gate.check(config, machine, model_folder, updates, problems, cpu)
        caches = cache_sizes(config, machine, model_folder)
        inputs = resume.fingerprints(config, data, model_folder) | rewards.fingerprints
        changes = resumed.changes + resume.changed_inputs(resumed, config, inputs) if resumed else ()
        run = resumed.run if resumed else stack.enter_context(_new_run(config))
        step = resumed.step if resumed else None
        rewards.copy_to(run)
        store = stack.enter_context(WeightsStore(config.shm, run.path))
        values, source = config.model_dump(mode="json"), models.hub_source(config.model.path, model_folder)
        manifest.write_manifest(run, values, inputs=inputs, base_model=source)  # first: an old one may be damaged
        manifest.write_config(run, values)
        placement = stack.enter_context(open_placement(config, run.path))
        plan = WorkerPlan(config, data, model_folder, critic_folder, teacher, run, step, store, placement, caches)
        return _run_to_exit_code(plan, updates, estimate, changes)


@contextmanager
def _new_run(config: Config) -> Iterator[RunFolder]:
    run = run_folder.create(config.artifacts, config.name, sweep=config.sweep)
    with run_folder.locked(run):
        yield run


def _run_to_exit_code(
    plan: WorkerPlan, updates: int, estimate: Estimate | None, changes: Sequence[SettingChange]
) -> int:
    """Train, write the report unless a signal ended the run, show the end; returns the exit code."""
    config, run = plan.config, plan.run
    try:
        outcome = _supervise(plan, updates, estimate, changes)
    except LabError:
        show_end(config, run, None)
        raise
    if outcome.signal:
        show_end(config, run, None)  # without a report: the sender of the signal may kill us soon
        return 128 + outcome.signal
    from grpo_gsm8k.report.write_report import report_of_run  # lazy: only the end of a run needs it

    with stage("writing the report"):
        report = report_of_run(run.path)
    show_end(config, run, report)
    if outcome.over_budget:
        fix = f"continue with {config.command}.resume_from=latest and a new budget, or without one"
        print(f"{OVER_BUDGET}, after a checkpoint: {fix}", file=sys.stderr)
        return EXIT_OVER_BUDGET
    return EXIT_REGRESSION if outcome.regressed else 0


def total_updates(config: Config, prompts: int) -> int:
    """Return the number of updates: as configured, or for epochs of `prompts`; for sft, those that the examples fill.

    With epochs it is too high if prompts turn out to be too long: the learner reports the exact number at its start.
    """
    if config.command != "sft":
        return config.policy_gradient.updates_for(prompts)
    folder = config.artifacts / config.preprocess.folder
    tokens.verify(folder)
    lengths = tokens.trained_lengths(folder)
    return len(plan_updates(lengths, update_size(config.sft), config.sft.epochs, config.seed))


def check_context(config: Config, context: int) -> None:
    """Raise UserError unless the engine's context fits the model and leaves room for a prompt."""
    actor, limit = config.actor, config.training.max_new_tokens
    if actor.max_model_len > context:
        raise UserError(f"actor.max_model_len={actor.max_model_len} exceeds the model's context of {context}: lower it")
    if limit >= actor.max_model_len:
        raise UserError(
            f"{config.command}.max_new_tokens={limit} leaves no room for a prompt in "
            f"actor.max_model_len={actor.max_model_len}: lower the former or raise the latter"
        )


def check_teacher(config: Config, folder: Path) -> None:
    """Raise UserError unless the learner computes the teacher's numbers exactly, for all that the student can write."""
    key, limit = "policy_gradient.teacher.path", config.actor.max_model_len
    check_trainable(folder, limit, key)
    if limit > (context := models.context_length(folder)):
        raise UserError(f"{key}={folder} has a context of {context}: lower actor.max_model_len={limit} to it")


@dataclass(frozen=True)
class WorkerPlan:
    """What the workers of one run need; each worker can be started any number of times."""

    config: Config
    data: DataFolder
    model_folder: Path
    critic_folder: Path
    teacher_folder: Path | None
    run: RunFolder
    resume_step: int | None
    store: WeightsStore
    placement: Placement
    caches: CacheSizes

    def spawn_actor(self, index: int, deliver: Deliver) -> Worker | None:
        """Start actor `index`; None if there is no place for it now."""
        lora = self.config.learner.lora
        rank = lora.rank if lora.enabled and self.config.actor.lora == "adapter" else 0
        versions = self.config.training.versions_at_once
        spec = engine_spec(self.config, self.model_folder, rank, versions, kv_cache_bytes=self.caches.actor)
        return self.placement.spawn_actor(self.config, spec, self.run.logs, index, deliver)

    def spawn_learner(
        self, incarnation: int, in_use: Sequence[WeightsRef], wandb_run_id: str | None, deliver: Deliver
    ) -> Worker:
        """Start a learner; every learner but the first continues from the newest valid checkpoint.

        `in_use`: weights of the learners before it that actors may still load.
        """
        spec = LearnerSpec(
            config=self.config,
            model_folder=self.model_folder,
            critic_folder=self.critic_folder,
            data=self.data,
            run_folder=self.run.path,
            weights_root=self.store.incarnation_folder(incarnation, in_use),
            incarnation=incarnation,
            resume_step=self.resume_step if incarnation == 0 else None,
            wandb_run_id=wandb_run_id,
            teacher_folder=self.teacher_folder,
        )
        return spawn_learner(spec, self.run.logs, deliver)


def _supervise(plan: WorkerPlan, total: int, estimate: Estimate | None, changes: Sequence[SettingChange]) -> Outcome:
    config, run, machine = plan.config, plan.run, machine_of(manifest.read_manifest(plan.run))
    usd_per_hour = config.budget.usd_per_hour if estimate is None else estimate.usd_per_hour
    progress = open_console(total, config.console.samples, usd_per_hour)
    writers = open_writers(config, run)
    tracker = Tracker(run, writers.threads, total, 0, progress)
    for change in changes:
        tracker.event("config_changed", key=change.key, old=change.old, new=change.new)
        tracker.note(f"changed: {change.key} was {change.old}, now {change.new}")
    budget = RunBudget(config.budget, estimate, tracker.wall_seconds)
    ledger = Ledger(run.ledger_jsonl)
    spawners = Spawners(
        actor=plan.spawn_actor,
        learner=lambda incarnation, in_use, deliver: plan.spawn_learner(
            incarnation, in_use, writers.wandb_run_id, deliver
        ),
        actors=config.actor.replicas,
        delete=plan.placement.delete,
        discard=plan.placement.discard,
    )
    synchronous = config.command == "policy_gradient" and config.policy_gradient.max_staleness == 0
    limits = RestartLimits(
        config.actor.max_restarts, config.learner.max_restarts, config.stop_grace_s, repeat_bundles=synchronous
    )
    suite = RegressionSuite(config, run, plan.model_folder, tracker, plan.caches.suite)
    phases = StartPhases(tracker, learning_waits=config.command == "policy_gradient")
    status = "failed"
    try:
        outcome = Supervisor(spawners, limits, tracker, ledger, budget, suite, phases).run()
        early = "interrupted" if outcome.signal else OVER_BUDGET if outcome.over_budget else "stopped early"
        complete = outcome.step == tracker.total_steps and not (outcome.signal or outcome.over_budget)
        status = "done" if complete else early
    finally:
        suite.close()
        ledger.close()
        tracker.annotate(budget.summary())
        tracker.diagnose(config.model_dump(mode="json"), machine)
        tracker.close(status)
    return outcome
