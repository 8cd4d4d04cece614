"""The commands, and which part of the configuration each one reads."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A function of the configuration that returns an exit code; imported only when its command runs."""

    module: str
    function: str
    help: str
    keys: tuple[str, ...]  # sections and keys that it reads, shown by `command=X --help`


_OUTPUT = ("artifacts", "private_files")
_RUN = ("name", "sweep", *_OUTPUT, "seed")
_TRACKING = ("tracker", "completion_tables", "console", "wandb")
_PROCESSES = ("actor", "learner", "cluster")
_REST = ("budget", "deterministic", "shm", "stop_grace_s")
_TRAINING = ("model", "data", "prompt", *_PROCESSES, *_TRACKING, *_RUN, *_REST)
_FORCE = ("resume_force", "doctor.force")
_CHECKPOINT = ("run", "step", *_OUTPUT)

COMMANDS = {
    "data": Command(
        "grpo_gsm8k.commands.prepare_data",
        "prepare_problems",
        "prepare the data set",
        ("data", "prompt.locale", *_OUTPUT),
    ),
    "traces": Command(
        "grpo_gsm8k.traces.collect_traces",
        "collect_traces",
        "collect solutions from a teacher model",
        ("traces", "data", "prompt", "model", "actor", "cluster", *_OUTPUT, "seed"),
    ),
    "preprocess": Command(
        "grpo_gsm8k.data.preprocess",
        "preprocess_texts",
        "tokenize solutions for command=sft",
        ("preprocess", "data", "prompt", "model", "traces.folder", *_OUTPUT),
    ),
    "sft": Command(
        "grpo_gsm8k.orchestrator.run",
        "run_training",
        "train on solutions",
        ("sft", "preprocess", "policy_gradient.rewards", *_TRAINING, *_FORCE),
    ),
    "policy_gradient": Command(
        "grpo_gsm8k.orchestrator.run",
        "run_training",
        "train with a policy-gradient method",
        ("policy_gradient", *_TRAINING, *_FORCE),
    ),
    "eval": Command(
        "grpo_gsm8k.commands.evaluate",
        "evaluate",
        "evaluate models, or only generate",
        ("eval", "data", "prompt", "model", "actor", "cluster", *_RUN),
    ),
    "report": Command(
        "grpo_gsm8k.report.write_report", "write_report", "write an HTML page about runs", ("report", *_OUTPUT)
    ),
    "replay": Command(
        "grpo_gsm8k.commands.replay_update",
        "replay_update",
        "compute a recorded update again",
        (*_CHECKPOINT, "device"),
    ),
    "merge": Command(
        "grpo_gsm8k.commands.merge",
        "merge_adapter",
        "merge an adapter into its base model",
        (*_CHECKPOINT, "output"),
    ),
    "push": Command(
        "grpo_gsm8k.commands.push", "push_model", "upload a model to the Hugging Face Hub", ("push", *_CHECKPOINT)
    ),
    "scale": Command(
        "grpo_gsm8k.commands.scale",
        "scale_run",
        "change the number of engines of a running run",
        ("run", "actor.replicas", *_OUTPUT),
    ),
    "doctor": Command(
        "grpo_gsm8k.commands.examine",
        "examine",
        "check this machine, and whether the run fits it",
        ("doctor", "policy_gradient", *_TRAINING),
    ),
    "pipeline": Command(
        "grpo_gsm8k.commands.pipeline",
        "run_pipeline",
        "run several commands in order",
        ("pipeline", "preprocess", "sft", "policy_gradient", "eval", "report", *_TRAINING),
    ),
}
