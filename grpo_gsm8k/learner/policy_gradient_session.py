"""The session of a policy-gradient run: a session with rollouts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from grpo_gsm8k.data.limits import limited
from grpo_gsm8k.data.prepare import load_split
from grpo_gsm8k.learner import checkpoint, rollout_files, setup, update_record
from grpo_gsm8k.learner.checkpoint_writer import CheckpointWriter
from grpo_gsm8k.learner.earlier_weights import EarlierWeights
from grpo_gsm8k.learner.experience import Experience, experience_metrics
from grpo_gsm8k.learner.open_run import open_run
from grpo_gsm8k.learner.prompt_order import NO_PROMPTS
from grpo_gsm8k.learner.publisher import Publisher
from grpo_gsm8k.learner.rollout_batch import Batch
from grpo_gsm8k.learner.rollout_metrics import failed_gradings, rollout_metrics
from grpo_gsm8k.learner.rollouts import Rollouts
from grpo_gsm8k.learner.schedules import Decay, KlController, Rates, lr_scale
from grpo_gsm8k.learner.served_teacher import ServedTeacher
from grpo_gsm8k.learner.session import Session
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.learner.teacher_vocabulary import check_vocabulary
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.transport.protocol import StepDone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import numpy as np

    from grpo_gsm8k.learner.checkpoint import TrainerState
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.update_stats import UpdateStats


@dataclass(kw_only=True, eq=False)
class PolicyGradientSession(Session):
    """A run that learns from its own completions. `version` counts the policy updates done."""

    kl: KlController
    rollouts: Rollouts

    def begin(self) -> int:
        """Publish the first weights and wait for the engine; returns their version."""
        self.client.record_span("start", self.start)
        self.queue_weights(self.start)
        if self.engine_probe is not None:  # before everything else, so that it shares no batch with rollouts
            self.engine_probe.submit(self.start)
            self.client.flush()
            self.engine_probe.poll(wait=True)
        self.queue_requests(self.start)
        self.client.wait_until_live()  # the engine's start-up is not part of the first update's time
        self.client.record_span("wait for the engine", self.start)
        self.start_clock()
        return self.start

    def publish(self, version: int) -> None:
        """Send the weights and all requests that they allow as one bundle, so that batches do not depend on timing."""
        self.queue_weights(version)
        self.queue_requests(version)
        self.client.answer_damaged()

    def queue_requests(self, version: int) -> None:
        """Send what is queued, with all requests that weights `version` allow."""
        self.rollouts.request_until(version)
        self.queue_validation(version)
        self.client.flush()

    def rates(self, version: int) -> Rates:
        """Return the learning rates and the KL coefficient of the update of `version`, counted from 0."""
        learner, pg = self.config.learner, self.config.policy_gradient
        scale = lr_scale(version, self.updates, learner.warmup_updates, Decay.of(learner))
        return Rates(learner.lr * scale, pg.critic.lr * scale, self.kl.coefficient)

    def finish(self, version: int, batch: Batch, experience: Experience, stats: UpdateStats, rates: Rates) -> None:
        """Report the update that made `version`: metrics, ledger, rollouts, and a checkpoint if one is due."""
        metrics = self._update_metrics(version - 1, batch, experience, stats) | rates.metrics()
        uses = self.rollouts.uses(version - 1)
        metrics["train/epoch"] = self.rollouts.epoch
        self.validation.drain()
        rollouts = self.run_folder / "rollouts"
        rollout_files.write_rollouts(rollouts / f"step_{version}.parquet", batch, experience.advantages_GN)
        rollout_files.prune(rollouts, version, self.config.policy_gradient.keep_rollouts)
        metrics |= self.time_metrics(self.rollouts.waited_s + self.turn_s)
        metrics["time/grading_s"] = self.rollouts.grading_s
        metrics["rollout/tokens_per_s"] = metrics["rollout/tokens"] / metrics["time/step_s"]
        self.client.report(StepDone(version, metrics, uses))
        self.client.record_span("records", version)
        self.prune_when_saved()
        if self.save_due(version) or self.stop_requested:
            self.save(version)

    def _update_metrics(
        self, version: int, batch: Batch, experience: Experience, stats: UpdateStats
    ) -> dict[str, float]:
        """Return the metrics of the update of `version`, except for its times and rates."""
        metrics = {
            **stats.metrics(),
            **self.token_budget.metrics,
            **experience_metrics(experience, self.config),
            **rollout_metrics(batch, version),
        }
        if self.config.prompt.answer_rules.has_limits:
            metrics["rollout/grading_failed"] = float(failed_gradings(batch))
        if self.config.policy_gradient.active_sampling:
            metrics["rollout/resampled_prompts"] = float(self.rollouts.resampled(version))
        if self.config.policy_gradient.late != "wait":
            metrics["rollout/dropped_groups"] = float(self.rollouts.dropped(version))
        if self.config.policy_gradient.late == "partial":
            metrics["rollout/stale_tokens_frac"] = batch.stale_frac
        if self.config.data.sampler == "difficulty":
            metrics["rollout/skipped_prompts"] = float(self.rollouts.skipped(version))
        if self.config.policy_gradient.rewards_on_error == "zero":
            failures = [len(g.reward.failed) for group in batch.groups for g in group.completions]
            metrics["rollout/reward_errors"] = float(sum(failures))
        return metrics

    def state(self, version: int) -> TrainerState:
        """Return the counters of the run after `version` updates."""
        return replace(super().state(version), plan=self.rollouts.plan, kl_coefficient=self.kl.coefficient)

    def save_due(self, version: int) -> bool:
        """Whether `version` gets a checkpoint; those that the regression suite evaluates do, too."""
        suite = self.config.policy_gradient.regression_suite
        return super().save_due(version) or bool(suite.tasks and version % suite.every == 0)

    def record_inputs(self, batch: Batch, version: int) -> None:
        """Keep the inputs of the update of `version` for `command=replay`, if `policy_gradient.record` is set."""
        if self.config.policy_gradient.record:
            folder = self._record_folder(version)
            checkpoint.save(folder / "before", self.state(version), self.models, self.optimizers, self.tokenizer)
            update_record.save_batch(folder, batch.samples, batch.trained_rewards_GN)

    def record_result(self, version: int, rates: Rates, stats: UpdateStats) -> None:
        """Complete the record of the update of `version`, and delete the oldest records."""
        if self.config.policy_gradient.record:
            result = update_record.UpdateResult(*stats.loss_and_grad_norm())
            update_record.save_result(self._record_folder(version), version, rates, result)
            keep_last = self.config.policy_gradient.keep_last
            assert keep_last != "all"  # refused together with record
            update_record.prune(self.run_folder, keep_last)

    def _record_folder(self, version: int) -> Path:
        return self.run_folder / "records" / f"step_{version + 1}"


def _check_prompts(spec: LearnerSpec, task: Task, tokenizer: Any, prompts: Sequence[np.ndarray]) -> None:
    """Raise UserError unless the model, and the teacher if there is one, can read all prompts, arrays of token ids."""
    setup.check_token_ids(spec.model_folder, task.stop_token_ids, prompts)
    teacher = spec.config.policy_gradient.teacher
    if spec.teacher_folder is not None:
        check_vocabulary(spec.teacher_folder, spec.model_folder, tokenizer, prompts)
    if teacher.base_url is not None:
        ServedTeacher(teacher).check(tokenizer, prompts)


def open_policy_gradient(spec: LearnerSpec, client: Client) -> PolicyGradientSession:
    """Check everything that can be checked without an engine, report Ready, then load the weights: see `open_run`."""
    config = spec.config
    setup.set_up_torch(config)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    stop_ids = stop_token_ids(spec.model_folder, tokenizer, config.prompt.chat)
    task = Task(tokenizer, config, stop_ids, setup.open_user_rewards(spec, client))
    items, too_long = task.training_items(load_split(spec.data, "train"))
    limit = config.policy_gradient.eval_limit
    validated = limited(load_split(spec.data, "val"), limit, config.seed, "policy_gradient.eval_limit")
    validation_items = task.validation_items(validated)
    _check_prompts(spec, task, tokenizer, [item.prompt_ids for item in [*items, *validation_items]])
    updates = config.policy_gradient.updates_for(len(items))
    opened = open_run(spec, client, task, validation_items, updates)
    models, state = opened.models, opened.state
    session = PolicyGradientSession(
        config=config,
        updates=updates,
        client=client,
        models=models,
        optimizers=opened.optimizers,
        ranks=opened.ranks,
        kl=KlController(config.policy_gradient, state.kl_coefficient if state else None),
        tokenizer=tokenizer,
        task=task,
        rollouts=Rollouts(client, task, items, too_long, config, opened.start, state.plan if state else NO_PROMPTS),
        validation=opened.validation,
        publisher=Publisher(spec.weights_root, models.policy, config, items),
        earlier=EarlierWeights(spec, items),
        writer=CheckpointWriter(spec.run_folder / "checkpoints", tokenizer, client, config.training.keep_last),
        run_folder=spec.run_folder,
        wandb_run_id=spec.wandb_run_id,
        start=opened.start,
        unvalidated=opened.unvalidated,
        token_budget=setup.open_token_budget(config, client),
        engine_probe=setup.probe(models.policy, items, config, client),
    )
    session.resubmit_validations()
    return session
