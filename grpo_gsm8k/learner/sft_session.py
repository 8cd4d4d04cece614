"""The session of a fine-tuning run: a session with examples and the plan of its updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.limits import limited
from grpo_gsm8k.data.prepare import load_split
from grpo_gsm8k.data.schedule import plan_updates, update_size
from grpo_gsm8k.learner import setup
from grpo_gsm8k.learner.batching import TokenSequence, token_sequence
from grpo_gsm8k.learner.checkpoint_writer import CheckpointWriter
from grpo_gsm8k.learner.earlier_weights import EarlierWeights
from grpo_gsm8k.learner.open_run import open_run
from grpo_gsm8k.learner.publisher import Publisher
from grpo_gsm8k.learner.schedules import Decay, lr_scale
from grpo_gsm8k.learner.session import Session
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.transport.protocol import PromptUse, StepDone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.data.schedule import Use
    from grpo_gsm8k.data.tokens import Example
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.learner.tuning import TuningStats

# Published versions stay in /dev/shm until the engine has loaded them; beyond this number, learning waits.
MAX_PENDING_VALIDATIONS = 2


@dataclass(kw_only=True, eq=False)
class SftSession(Session):
    """A run that learns given responses: `plan[k]` lists the `examples` of update k."""

    examples: Sequence[Example]
    plan: Sequence[Sequence[Use]]
    _waited_s: float = 0.0
    _probed: bool = False

    def begin(self) -> int:
        """Publish the first weights if they have to be validated; returns their version."""
        self.client.record_span("start", self.start)
        self._waited_s = 0.0
        if self.validates(self.start):
            self._send(self.start)
        self.start_clock()
        return self.start

    def batch(self, step: int) -> list[TokenSequence]:
        """Return the sequences of update `step`, counted from 0."""
        return [sequence for _, index in self.plan[step] for sequence in as_sequences(self.examples[index])]

    def rate(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        sft = self.config.sft
        return sft.lr * lr_scale(step, self.updates, sft.warmup_updates, Decay.of(self.config.learner))

    def publish(self, step: int) -> None:
        """Publish the weights if their validation is due; waits while too many validations are in progress."""
        self._version, self._waited_s = step, 0.0
        if self.validation.due(step):
            self.validation.wait(at_most=MAX_PENDING_VALIDATIONS - 1)
            self._waited_s = self.validation.waited_s
            self._send(step)
        self.validation.drain()
        self.client.answer_damaged()
        if self.engine_probe is not None:
            self.engine_probe.poll(wait=False)

    def _send(self, version: int) -> None:
        """Send the weights with their validation; the first ones with the parity probe, whose answers may come late."""
        self.queue_weights(version)
        if self.engine_probe is not None and not self._probed:
            self._probed = True
            self.engine_probe.submit(version)
        self.queue_validation(version)
        self.client.flush()

    def finish(self, step: int, stats: TuningStats, rate: float) -> None:
        """Report the update that made version `step`: metrics, ledger, and a checkpoint if one is due."""
        times = self.time_metrics(self._waited_s + self.turn_s)
        metrics = stats.metrics(rate, times["time/step_s"]) | self.token_budget.metrics | times
        metrics["train/epoch"] = sum(len(uses) for uses in self.plan[:step]) / len(self.examples)
        uses = tuple(PromptUse(epoch, self.examples[index].id) for epoch, index in self.plan[step - 1])
        self.client.report(StepDone(step, metrics, uses))
        self.prune_when_saved()
        if self.save_due(step):
            self.save(step)

    def out_of_patience(self) -> bool:
        """Whether none of the last `patience` validations beat the best before them."""
        patience = self.config.sft.patience
        accuracy = [value for _, value in sorted(self.validation.accuracy.items())]
        if patience is None or len(accuracy) <= patience:
            return False
        return max(accuracy[-patience:]) <= max(accuracy[:-patience])


def as_sequences(example: Example) -> list[TokenSequence]:
    """Return an example in the form that micro-batches are packed from; of a pair, the chosen response comes first."""
    if example.mask is not None:
        return [TokenSequence(example.prompt_ids, example.response_ids, example.mask)]
    responses = [example.response_ids, *([] if example.rejected_ids is None else [example.rejected_ids])]
    return [token_sequence(example.prompt_ids, ids) for ids in responses]


def open_sft(spec: LearnerSpec, client: Client) -> SftSession:
    """Check everything that can be checked without an engine, report Ready, then load the weights: see `open_run`."""
    config = spec.config
    setup.set_up_torch(config)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    folder = config.artifacts / config.preprocess.folder
    tokens.check_made_for(folder, tokens.verify(folder), tokenizer, config.prompt)
    examples = tokens.read_shards(folder, "train")
    tokens.check_pairs(folder, examples, wanted=config.sft.loss == "dpo")
    plan = plan_updates([e.trained_tokens for e in examples], update_size(config.sft), config.sft.epochs, config.seed)
    stop_ids = stop_token_ids(spec.model_folder, tokenizer, config.prompt.chat)
    task = Task(tokenizer, config, stop_ids, setup.open_user_rewards(spec, client))
    validated = limited(load_split(spec.data, "val"), config.sft.eval_limit, config.seed, "sft.eval_limit")
    items = task.validation_items(validated)
    texts = [ids for e in examples for ids in e.all_ids] + [item.prompt_ids for item in items]
    setup.check_token_ids(spec.model_folder, task.stop_token_ids, texts)
    opened = open_run(spec, client, task, items, len(plan))
    policy = opened.models.policy
    session = SftSession(
        config=config,
        updates=len(plan),
        client=client,
        models=opened.models,
        optimizers=opened.optimizers,
        ranks=opened.ranks,
        tokenizer=tokenizer,
        task=task,
        validation=opened.validation,
        publisher=Publisher(spec.weights_root, policy, config, items),
        earlier=EarlierWeights(spec, items),
        writer=CheckpointWriter(spec.run_folder / "checkpoints", tokenizer, client, config.training.keep_last),
        run_folder=spec.run_folder,
        wandb_run_id=spec.wandb_run_id,
        start=opened.start,
        unvalidated=opened.unvalidated,
        token_budget=setup.open_token_budget(config, client),
        engine_probe=setup.probe(policy, items, config, client),
        examples=examples,
        plan=plan,
    )
    session.resubmit_validations()
    return session
