"""Puts a learner of supervised fine-tuning together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.prepare import load_split
from grpo_gsm8k.data.schedule import plan_updates
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.publisher import Publisher
from grpo_gsm8k.learner.session import open_token_budget
from grpo_gsm8k.learner.setup import (
    find_checkpoint,
    open_optimizers,
    open_policy,
    restore,
    resubmit_validations,
    set_up_torch,
)
from grpo_gsm8k.learner.sft import SftSession
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.learner.validation import Validation
from grpo_gsm8k.models import stop_token_ids
from grpo_gsm8k.transport.protocol import Ready, Resumed

if TYPE_CHECKING:
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.spec import LearnerSpec


def open_sft(spec: LearnerSpec, client: Client) -> SftSession:
    """Check everything that can be checked without an engine, report ready, then load the weights."""
    config = spec.config
    set_up_torch(config)
    tokenizer = AutoTokenizer.from_pretrained(spec.model_folder)
    folder = config.artifacts / config.preprocess.folder
    tokens.check_made_for(folder, tokens.verify(folder), tokenizer, config.prompt)
    examples = tokens.read_shards(folder, "train")
    plan = plan_updates(
        [len(e.response_ids) for e in examples], config.sft.min_tokens_per_update, config.sft.epochs, config.seed
    )
    task = Task(tokenizer, config, stop_token_ids(spec.model_folder, tokenizer))
    items = task.validation_items(load_split(spec.data, "val")[: config.sft.eval_limit])
    found = find_checkpoint(spec)
    client.report(Ready())

    checkpoint_folder, state = found if found else (None, None)
    start = state.step if state else 0
    models = Models(open_policy(config.learner, spec.model_folder, checkpoint_folder), None, None)
    rates = {"lr": config.sft.lr, "weight_decay": config.sft.weight_decay}
    optimizers = open_optimizers(models, config.learner.model_copy(update=rates))
    validation = Validation(client, task, items, config, len(plan), spec.run_folder / "validation")
    if checkpoint_folder and state:
        restore(checkpoint_folder, state, models, optimizers, validation)
    client.report(Resumed(start))
    session = SftSession(
        config=config,
        updates=len(plan),
        client=client,
        models=models,
        optimizers=optimizers,
        tokenizer=tokenizer,
        validation=validation,
        publisher=Publisher(spec.weights_root, models.policy, config, items),
        run_folder=spec.run_folder,
        wandb_run_id=spec.wandb_run_id,
        start=start,
        unvalidated=state.pending_validations if state else (0,),
        token_budget=open_token_budget(config, client),
        examples=examples,
        plan=plan,
    )
    resubmit_validations(session, items, spec)
    return session
