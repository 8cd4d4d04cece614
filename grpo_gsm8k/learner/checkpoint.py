"""Checkpoints: everything that a run needs to continue exactly, in safetensors and JSON.

`checkpoints/step_<N>/` after N policy updates:
  model/                  a plain Hugging Face folder with the float32 master weights, or with the adapter
  optimizer.safetensors   the optimizer's state by parameter name
  critic.safetensors      weights of the critic, if any
  critic_optimizer.safetensors
  rng.safetensors         torch's random state
  state.json              step, prompt plan, KL coefficient, pending validations, accuracies, seed, W&B run id
  manifest.json           sizes and checksums of all of these
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from grpo_gsm8k.errors import CheckpointError, DiskFullError, IntegrityError
from grpo_gsm8k.faults import hook
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import refuse_link, rename, written_aside
from grpo_gsm8k.files.parsing import first_problem, json_value
from grpo_gsm8k.learner.prompt_order import NO_PROMPTS, PromptPlan
from grpo_gsm8k.tracking.run_folder import step_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.update import Optimizers

STATE_VERSION = 2
MODEL = "model"
OPTIMIZER = "optimizer.safetensors"
CRITIC = "critic.safetensors"
CRITIC_OPTIMIZER = "critic_optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The counters of a run after `step` updates.

    `accuracy` holds finished validations by version. `plan` and `kl_coefficient` belong to policy gradient; fine-tuning
    leaves them at their defaults.
    """

    step: int
    pending_validations: tuple[int, ...]
    accuracy: dict[int, float]
    wandb_run_id: str | None
    seed: int
    plan: PromptPlan = NO_PROMPTS
    kl_coefficient: float = 0.0
    state_version: int = STATE_VERSION


_STATE = TypeAdapter(TrainerState)


def step_folder(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint of `step`."""
    return checkpoints / f"step_{step}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a checkpoint will hold, as it is after `step` updates: the counters as JSON, and tensors by file."""

    step: int
    state: str
    model: Any  # Hugging Face's, or peft's
    weights: dict[str, torch.Tensor]  # of the model, by the names of its state
    files: dict[str, dict[str, torch.Tensor]]
    live: frozenset[str] = frozenset()  # `model`, and files, whose tensors training changes

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return _nbytes(self.weights) + sum(map(_nbytes, self.files.values()))

    @property
    def live_nbytes(self) -> int:
        """Size of the tensors that training changes, which `copied` copies."""
        files = {**self.files, MODEL: self.weights}
        return sum(_nbytes(files[name]) for name in self.live & files.keys())


def take(state: TrainerState, models: Models, optimizers: Optimizers) -> Snapshot:
    """Return a snapshot of the live tensors, as far as they can be written as they are.

    Raises CheckpointError for weights that are not finite.
    """
    policy = models.policy
    weights = policy.saved_tensors()
    critic = {} if models.critic is None else models.critic.saved_tensors()
    named = [*weights.items(), *((f"critic: {name}", tensor) for name, tensor in critic.items())]
    bad = [name for name, tensor in named if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(f"step {state.step} is not saved: {bad[0]} has values that are not finite")
    files = {OPTIMIZER: optimizers.policy.state_tensors(), "rng.safetensors": _random_state()}
    live = {OPTIMIZER} if optimizers.policy.lends_state else set()
    if policy.shards is None:
        live |= {MODEL}
    if models.critic is not None and optimizers.critic is not None:
        files[CRITIC] = critic
        live |= set() if models.critic.is_divided else {CRITIC}
        files[CRITIC_OPTIMIZER] = optimizers.critic.state_tensors()
        live |= {CRITIC_OPTIMIZER} if optimizers.critic.lends_state else set()
    return Snapshot(state.step, json.dumps(asdict(state), indent=1), policy.model, weights, files, frozenset(live))


def copied(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with copies in host memory in place of the live tensors, so that training may go on."""
    files = snapshot.files | {name: _copies(snapshot.files[name]) for name in snapshot.live & snapshot.files.keys()}
    weights = _copies(snapshot.weights) if MODEL in snapshot.live else snapshot.weights
    return replace(snapshot, weights=weights, files=files, live=frozenset())


def _copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to the host. Tied weights stay tied, so that they are written once."""
    made: dict[tuple[object, ...], torch.Tensor] = {}
    for tensor in tensors.values():
        if _place(tensor) not in made:
            made[_place(tensor)] = tensor.to("cpu", copy=True)
    return {name: made[_place(tensor)] for name, tensor in tensors.items()}


def _nbytes(tensors: dict[str, torch.Tensor]) -> int:
    """Return the size of tensors; tied weights count once, as in a file."""
    return sum(tensor.nbytes for tensor in {_place(tensor): tensor for tensor in tensors.values()}.values())


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.dtype


def write(
    checkpoints: Path, snapshot: Snapshot, tokenizer: Any, before_it_appears: Callable[[], None] = lambda: None
) -> Path:
    """Write `step_<N>`; it appears whole or not at all, and is on the disk then.

    Raises DiskFullError if it does not fit, CheckpointError for another reason.

    `before_it_appears` is called when only the rename is left: it waits until the update is recorded, because a run
    continues from its newest checkpoint, whose records must exist.
    """
    final = step_folder(checkpoints, snapshot.step)
    refuse_link(checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    _check_space(final, snapshot)
    try:
        with written_aside(final, durable=True, sole_writer=True) as aside:
            snapshot.model.save_pretrained(aside / "model", state_dict=snapshot.weights)
            tokenizer.save_pretrained(aside / "model")
            hook("save.model", final.name)
            for name, tensors in snapshot.files.items():
                save_file(tensors, aside / name)
            (aside / "state.json").write_text(snapshot.state)
            checksums.write_manifest(aside, {"step": snapshot.step})
            hook("save.complete", final.name)
            before_it_appears()
    except (OSError, SafetensorError) as error:
        free = shutil.disk_usage(checkpoints).free
        raise CheckpointError(f"{final} could not be written, {free} bytes are free: {error}") from error
    return final


def save(checkpoints: Path, state: TrainerState, models: Models, optimizers: Optimizers, tokenizer: Any) -> Path:
    """Write a checkpoint at once, without copies of the weights. Raises what `write` does."""
    return write(checkpoints, take(state, models, optimizers), tokenizer)


def _check_space(final: Path, snapshot: Snapshot) -> None:
    """Raise DiskFullError if the disk is too full: a process that maps a file of a full tmpfs is killed instead."""
    needed, disk = snapshot.nbytes, shutil.disk_usage(final.parent)
    if disk.total and disk.free < needed:  # some network file systems report sizes of zero
        raise DiskFullError(
            f"{final} needs {needed} bytes and {disk.free} are free: make room, or set artifacts=FOLDER on another disk"
        )


def read_state(folder: Path) -> TrainerState:
    """Verify every byte of a checkpoint and return its counters. Raises CheckpointError."""
    try:
        checksums.verify(folder)
        values = json_value((folder / "state.json").read_bytes())
    except (IntegrityError, OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    version = values.get("state_version") if isinstance(values, dict) else None
    if version != STATE_VERSION:
        raise CheckpointError(f"{folder}: state version {version}, expected {STATE_VERSION}")
    try:
        return _STATE.validate_python(values)
    except ValidationError as error:
        raise CheckpointError(f"{folder}: state.json is damaged: {first_problem(error)}") from None


def restore(folder: Path, models: Models, optimizers: Optimizers) -> None:
    """Load critic, optimizers and random state of a verified checkpoint; the policy is loaded with its model."""
    optimizers.policy.load_state_tensors(load_file(folder / OPTIMIZER))
    if models.critic is not None and optimizers.critic is not None:
        if not (folder / CRITIC).exists():
            raise CheckpointError(f"{folder} has no critic: resume with policy_gradient.critic.kind=none")
        models.critic.load_tensors(load_file(folder / CRITIC))
        optimizers.critic.load_state_tensors(load_file(folder / CRITIC_OPTIMIZER))
    rng = load_file(folder / "rng.safetensors")
    torch.set_rng_state(rng["cpu"])
    if "cuda" in rng and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(rng["cuda"])


def newest_valid(checkpoints: Path) -> tuple[Path, TrainerState] | None:
    """Return the newest checkpoint whose checksums hold, with its counters; None if there is none at all.

    Damaged ones are skipped. If all are damaged, they are moved to `damaged/` and CheckpointError is raised: to begin
    again from the start model would void everything that the run has recorded.
    """
    folders = step_folders(checkpoints)
    for _, folder in reversed(folders):
        try:
            return folder, read_state(folder)
        except CheckpointError as error:
            print(f"skipped: {error}", flush=True)  # into the learner's log
    if not folders:
        return None
    for _, folder in folders:
        _move_into(checkpoints / "damaged", folder)
    raise CheckpointError(
        f"all {len(folders)} checkpoints in {checkpoints} are damaged and were moved to {checkpoints / 'damaged'}: "
        "restore one of them, or start a new run"
    )


def prune(
    checkpoints: Path, keep_last: int | Literal["all"], accuracy: dict[int, float], pending: tuple[int, ...]
) -> None:
    """Delete all checkpoints but the last `keep_last`, the most accurate one, and those still being validated."""
    if keep_last == "all":
        return
    folders = dict(step_folders(checkpoints))
    for step in _expendable(list(folders), keep_last, accuracy, pending):
        shutil.rmtree(folders[step])


def make_room(checkpoints: Path, snapshot: Snapshot) -> tuple[int, ...]:
    """Delete old checkpoints, the oldest first, until `snapshot` fits; returns their steps.

    The newest one, the best, and those still being validated stay. Nothing is deleted if that would not make room.
    """
    state = _STATE.validate_json(snapshot.state)
    folders = dict(step_folders(checkpoints))
    sizes = {step: _disk_usage(folder) for step, folder in folders.items()}
    needed = max(snapshot.nbytes, *sizes.values(), 0)  # tensors, tokenizer, counters, blocks that are partly used
    chosen: list[int] = []
    freed = shutil.disk_usage(checkpoints).free
    for step in _expendable(list(folders), 1, state.accuracy, state.pending_validations):
        if chosen and freed >= needed:  # one in any case: a quota does not show in the free bytes
            break
        chosen.append(step)
        freed += sizes[step]
    if freed < needed:
        return ()
    for step in chosen:
        shutil.rmtree(folders[step])
    return tuple(chosen)


def _disk_usage(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())  # st_blocks: always of 512


def _expendable(
    steps: Sequence[int], keep_last: int, accuracy: dict[int, float], pending: tuple[int, ...]
) -> list[int]:
    """Return all steps but the last `keep_last`, the most accurate one and the pending ones, the oldest first."""
    best = max((step for step in steps if step in accuracy), key=lambda step: (accuracy[step], -step), default=None)
    kept = {*sorted(steps)[-keep_last:], *pending, best}
    return [step for step in sorted(steps) if step not in kept]


def set_aside_later(checkpoints: Path, step: int) -> None:
    """Move checkpoints later than `step` to `superseded/`: the run continues from `step`, so they are void."""
    for number, path in step_folders(checkpoints):
        if number > step:
            _move_into(checkpoints / "superseded", path)


def remove_leftovers(checkpoints: Path) -> None:
    """Delete what a killed process was writing; no other process may be writing."""
    for path in checkpoints.glob(".step_*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _move_into(folder: Path, path: Path) -> None:
    """Move a checkpoint into another folder, where it replaces one of the same step."""
    refuse_link(folder)
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    shutil.rmtree(target, ignore_errors=True)
    rename(path, target)


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # asking for it would open a context on a GPU that this process does not use
        state["cuda"] = torch.cuda.get_rng_state()
    return state
