"""The doctor's report as plain tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grpo_gsm8k.preflight import fit
from grpo_gsm8k.preflight.devices import GIB, TABLE
from grpo_gsm8k.preflight.engine_memory import checkpoint_bytes, disk_bytes, shm_bytes
from grpo_gsm8k.preflight.memory import gib

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.checks import CheckLine
    from grpo_gsm8k.preflight.diagnosis import Diagnosis
    from grpo_gsm8k.preflight.fast_paths import FastPath

PIPE_WIDTH = 140  # columns when the output is not a terminal
ITEMS = (
    ("weights", "weights"),
    ("gradients", "gradients"),
    ("optimizer", "optimizer state"),
    ("reference", "reference model"),
    ("critic", "critic"),
    ("teacher", "teacher"),
    ("weight_copies", "weights in the compute precision"),
    ("activations", "activations of one micro-batch"),
    ("logits", "logits and the head's gradient"),
    ("backward", "one block's backward pass"),
    ("optimizer_step", "temporaries of the optimizer step"),
    ("teacher_pass", "the teacher's pass over one micro-batch"),
    ("resumed_policy", "second policy, only for unfinished validations after a resume"),
    ("host", "offloaded to host memory"),
)


def show(lines: list[CheckLine], diagnosis: Diagnosis | None, config: Config, paths: list[FastPath]) -> None:
    """Print the whole report to standard output."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(_checks(lines))
    if diagnosis is not None:
        console.print(_memory(diagnosis, config))
        console.print(_devices(diagnosis, config))
        for text in _conclusion(diagnosis):
            console.print(text)
    console.print(_paths(paths))


def _table(*columns: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _checks(lines: list[CheckLine]) -> Table:
    table = _table("", "", "", title="\nThis machine")
    for line in lines:
        table.add_row(line.status, line.name, line.text + (f"\n-> {line.fix}" if line.fix else ""))
    return table


def _memory(diagnosis: Diagnosis, config: Config) -> Table:
    shape, learner, actor = diagnosis.shape, diagnosis.sides.learner, diagnosis.sides.actor
    title = f"\nMemory: {shape.parameters:,} parameters, micro-batches of {config.learner.token_budget} tokens"
    table = _table("learner", "", title=title)
    for name, label in ITEMS:
        if amount := getattr(learner, name):
            table.add_row(label, gib(amount))
    table.add_row("peak", gib(learner.peak))
    table.add_row("with process and allocator", gib(diagnosis.sides.learner_need))
    table.add_section()
    table.add_row("actor", "")
    table.add_row("weights", gib(actor.weights))
    table.add_row("keys and values of one token", f"{actor.cache_per_token / 1024:.0f} KiB")
    table.add_row(f"sequences of {config.actor.max_model_len} tokens at once", str(actor.sequences))
    table.add_row(f"weight versions in {config.shm}", gib(shm_bytes(shape, config)))
    table.add_row("checkpoints on disk", gib(disk_bytes(shape, config, diagnosis.estimate.updates)))
    table.add_row("one checkpoint", gib(checkpoint_bytes(shape, config)))
    return table


def _devices(diagnosis: Diagnosis, config: Config) -> Table:
    """Build the table of all known GPUs in both layouts."""
    table = _table("GPU", "GiB", "USD/h", "two GPUs", "one GPU", title="\nWhere it fits")
    on_gpu = _on_gpus(config)
    for device in TABLE:
        room = device.memory_gib * GIB
        verdicts = [fit.evaluate_fit(diagnosis.shape, on_gpu, room, room, shared).fits for shared in (False, True)]
        words = ["fits" if fits else "no" for fits in verdicts]
        table.add_row(device.name, f"{device.memory_gib:.0f}", f"{device.usd_per_hour:.2f}", *words)
    return table


def _on_gpus(config: Config) -> Config:
    """Return the configuration with two GPUs if a process is configured to run on a CPU."""
    if config.actor.device != "cpu" and config.learner.device != "cpu":
        return config
    return fit.with_overrides(config, ["actor.device=cuda:0", "learner.device=cuda:1"])


def _conclusion(diagnosis: Diagnosis) -> list[str]:
    sides, made, places = diagnosis.sides, diagnosis.estimate, diagnosis.places
    layout = f"one {places.learner.name}" if places.shared else f"{places.actor.name} and {places.learner.name}"
    if not places.known:
        verdict = "not checked: the memory of the devices is unknown; set doctor.gpu=NAME"
    else:
        verdict = f"{'fits' if sides.fits else 'does not fit'} {layout}"
    texts = [f"\nverdict: {verdict}"]
    if diagnosis.suggestion is not None:
        need = gib(diagnosis.suggestion.sides.learner_need)
        texts.append(f"nearest that fits ({need}): {' '.join(diagnosis.suggestion.overrides)}")
    price = "price unknown" if made.usd is None else f"about ${made.usd:.2f} at ${made.usd_per_hour:.2f} per hour"
    texts.append(
        f"{made.updates} updates of about {made.step_s:.3g} s: {made.hours:.2g} h, {price} "
        "(from the rates in the table; a run refines this from its first updates)"
    )
    return texts


def _paths(paths: list[FastPath]) -> Table:
    table = _table("", "", "", title="\nFast paths of the learner")
    for path in paths:
        table.add_row("active" if path.active else "inactive", path.name, path.reason)
    return table
