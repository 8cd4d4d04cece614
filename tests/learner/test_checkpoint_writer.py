"""Checkpoints that are written while training goes on: what is in them, what is reported when, and errors."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from grpo_gsm8k.errors import CheckpointError, DiskFullError
from grpo_gsm8k.learner import checkpoint, checkpoint_writer
from grpo_gsm8k.learner.checkpoint import TrainerState
from grpo_gsm8k.learner.checkpoint_writer import CheckpointWriter
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.setup import open_optimizers
from grpo_gsm8k.learner.update import Optimizers
from grpo_gsm8k.transport.protocol import CheckpointSaved, CheckpointsDeleted, Span
from tests.conftest import file_system
from tests.learner.conftest import small_config

STATE = TrainerState(step=3, pending_validations=(), accuracy={}, wandb_run_id=None, seed=0)
KINDS = {
    "full": (),
    "ppo": ("policy_gradient=ppo", "policy_gradient.critic.kind=separate"),
    "lora": ("learner=lora", "learner.dtype=float32"),
    "qlora": ("learner=qlora", "learner.dtype=float32", "actor.lora=merged"),
    "adamw_8bit": ("learner.optimizer=adamw_8bit",),
    "offloaded": ("learner.offload_optimizer=true",),
}


class Reports:
    """The client as the writer uses it."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def report(self, message: object) -> None:
        self.sent.append(message)

    def wait_until_recorded(self, step: int) -> None:
        self.waited_for = step

    def poll(self) -> None:
        pass

    def wait_for(self, work: Future[Any]) -> Any:
        return work.result()

    @property
    def saved(self) -> list[int]:
        return [message.step for message in self.sent if isinstance(message, CheckpointSaved)]


class Gate:
    """Holds the thread at the point where all files are written and nothing has its name yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        write_manifest = checkpoint.checksums.write_manifest

        def held(*arguments: Any) -> None:
            self.reached.set()
            assert self.opened.wait(60)
            write_manifest(*arguments)

        monkeypatch.setattr(checkpoint.checksums, "write_manifest", held)


Parts = tuple[Models, Optimizers]


@pytest.fixture
def build(random_model: Path) -> Callable[..., Parts]:
    def parts(*overrides: str) -> Parts:
        """Models and optimizers after two steps with the same gradients each time."""
        config = small_config(*overrides)
        torch.manual_seed(0)  # of the adapter
        policy = load_policy(random_model, config.learner)
        models = Models(policy, None, build_critic(config, policy, random_model))
        optimizers = open_optimizers(models, config.learner)
        for _ in range(2):
            change(models, optimizers)
        return models, optimizers

    return parts


def change(models: Models, optimizers: Optimizers) -> None:
    """One step of every optimizer."""
    for model, optimizer in ((models.policy, optimizers.policy), (models.critic, optimizers.critic)):
        if model is not None and optimizer is not None:
            for _, p in model.named_parameters():
                p.grad = torch.full_like(p, 0.1)
            optimizer.step(1e-2)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def writer(tmp_path: Path, random_model: Path, reports: Any) -> Iterator[CheckpointWriter]:
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    with closing(CheckpointWriter(tmp_path / "run", tokenizer, reports, keep_last=2)) as writer:
        yield writer


def files_of(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("model/README.md", None)  # of peft
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_training_that_goes_on_changes_nothing_in_the_checkpoint(
    build: Callable[..., Parts],
    writer: CheckpointWriter,
    reports: Reports,
    tmp_path: Path,
    random_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """All files are those of a checkpoint written at once: weights, optimizer, critic, random state and counters."""
    models, optimizers = build(*KINDS[kind])
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    at_once = checkpoint.save(tmp_path / "at_once", STATE, models, optimizers, tokenizer)
    gate = Gate(monkeypatch)
    monkeypatch.setattr(checkpoint_writer, "has_room", lambda copy: True)
    writer.save(STATE, models, optimizers, training_goes_on=True)
    change(models, optimizers)
    torch.rand(1)
    assert gate.reached.wait(60)
    assert writer.has(3)
    assert not writer.finished()
    assert not list((tmp_path / "run").glob("step_*"))
    assert reports.saved == []
    gate.opened.set()
    writer.wait()
    assert writer.finished()
    assert not writer.finished()  # said once
    assert reports.saved == [3]
    (span,) = (message for message in reports.sent if isinstance(message, Span))
    assert (span.row, span.version) == ("checkpoints", 3)
    assert files_of(tmp_path / "run" / "step_3") == files_of(at_once)
    assert checkpoint.read_state(tmp_path / "run" / "step_3") == STATE


def test_nothing_is_copied_where_no_training_follows_or_no_memory_is_left(
    build: Callable[..., Parts], writer: CheckpointWriter, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, optimizers = build()

    def refuse(*_: object) -> None:
        pytest.fail("copied")

    monkeypatch.setattr(checkpoint, "copied", refuse)
    writer.save(STATE, models, optimizers, training_goes_on=False)
    monkeypatch.setattr(checkpoint_writer, "free_memory_bytes", lambda: 0.0)
    writer.save(replace(STATE, step=4), models, optimizers, training_goes_on=True)
    assert reports.saved == [3, 4]  # without waiting: it was written before training goes on
    assert writer.finished()


def test_the_next_one_waits_for_the_one_before(
    build: Callable[..., Parts], writer: CheckpointWriter, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, optimizers = build()
    gate = Gate(monkeypatch)
    writer.save(STATE, models, optimizers, training_goes_on=True)
    assert gate.reached.wait(60)
    threading.Timer(0.1, gate.opened.set).start()
    writer.save(replace(STATE, step=4), models, optimizers, training_goes_on=True)
    assert reports.saved[:1] == [3]
    writer.wait()
    assert reports.saved == [3, 4]


def test_a_write_that_failed_is_raised_in_the_learner_and_leaves_nothing(
    build: Callable[..., Parts], writer: CheckpointWriter, reports: Reports, tmp_path: Path, monkeypatch: Any
) -> None:
    models, optimizers = build()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    for take in (writer.finished, writer.wait, lambda: writer.save(STATE, models, optimizers, training_goes_on=True)):
        writer.save(STATE, models, optimizers, training_goes_on=True)
        concurrent_done(writer)
        with pytest.raises(DiskFullError, match="step_3 was not written"):
            take()
    assert reports.sent == []
    assert list((tmp_path / "run").iterdir()) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system at the writer's folder, which the test can fill."""
    with file_system(tmp_path / "run", "100m") as folder:
        yield folder


def fill(disk: Path, left: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - left))


def steps_in(folder: Path) -> set[int]:
    return {int(path.name[5:]) for path in folder.glob("step_*")}


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_on_a_full_disk_old_checkpoints_make_room(
    build: Callable[..., Parts],
    disk: Path,
    writer: CheckpointWriter,
    reports: Reports,
    monkeypatch: pytest.MonkeyPatch,
    in_the_middle: bool,
) -> None:
    """Found before the write, or in the middle of it. The best, the newest and one being validated stay."""
    models, optimizers = build()
    state = replace(STATE, accuracy={1: 0.5, 3: 0.25}, pending_validations=(4,))
    for step in (1, 2, 3, 4, 5):
        writer.save(replace(state, step=step), models, optimizers, training_goes_on=False)
    writer.wait()
    size = sum(path.stat().st_blocks * 512 for path in (disk / "step_5").rglob("*") if path.is_file())
    if in_the_middle:
        monkeypatch.setattr(checkpoint, "_check_space", lambda *_: None)
    for step, lost in ((6, 2), (7, 3), (8, 5)):
        fill(disk, left=size // 2)
        writer.save(replace(state, step=step), models, optimizers, training_goes_on=False)
        writer.wait()
        deleted = [message for message in reports.sent if isinstance(message, CheckpointsDeleted)][-1]
        assert deleted.steps == (lost,)
        assert str(disk / f"step_{step}") in deleted.reason
        assert checkpoint.read_state(disk / f"step_{step}").step == step
    assert steps_in(disk) == {1, 4, 6, 7, 8}


def test_nothing_is_deleted_where_that_would_not_make_room_or_all_are_kept(
    build: Callable[..., Parts], disk: Path, writer: CheckpointWriter, random_model: Path, reports: Any
) -> None:
    models, optimizers = build()
    for step in (1, 2, 3):
        writer.save(replace(STATE, step=step, accuracy={1: 0.5}), models, optimizers, training_goes_on=False)
    writer.wait()
    fill(disk, left=4096)
    (disk / "step_2/optimizer.safetensors").unlink()  # it no longer frees enough
    fill(disk, left=4096)
    for keep in (2, "all"):
        tokenizer = AutoTokenizer.from_pretrained(random_model)
        with closing(CheckpointWriter(disk, tokenizer, reports, keep_last=keep)) as another:  # type: ignore[arg-type]
            another.save(replace(STATE, step=4, accuracy={1: 0.5}), models, optimizers, training_goes_on=False)
            with pytest.raises(DiskFullError, match=r"step_4 needs \d+ bytes and 4096 are free: make room"):
                another.wait()
    assert steps_in(disk) == {1, 2, 3}


def concurrent_done(writer: CheckpointWriter) -> None:
    assert writer._writing is not None
    assert writer._writing.exception(60) is not None


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(
    build: Callable[..., Parts], writer: CheckpointWriter, tmp_path: Path
) -> None:
    models, optimizers = build()
    with torch.no_grad():
        models.policy.named_parameters()[0][1].view(-1)[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        writer.save(STATE, models, optimizers, training_goes_on=True)
    assert not (tmp_path / "run").exists()
