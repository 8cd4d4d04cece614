"""Weights store and publishing: lock, sweep after a crash, permissions, free space, damage."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grpo_gsm8k.errors import UserError, WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import WeightsRef
from grpo_gsm8k.transport.weights_store import WeightsStore

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = weights.Canary((1, 2), (-0.5,))


def abcd(folder: Path) -> dict[str, str]:
    (folder / weights.MODEL_FILE).write_bytes(b"abcd")
    return {}


def test_claim_and_release(tmp_path: Path) -> None:
    with WeightsStore(tmp_path, Path("run")) as store:
        folder = store.incarnation_folder(0)
        weights.publish(folder, 3, "model", 10, abcd, CANARY)
        with pytest.raises(UserError, match="already active"):
            WeightsStore(tmp_path, Path("run")).__enter__()
        with WeightsStore(tmp_path, Path("other")), WeightsStore(tmp_path, Path("elsewhere/run")):
            assert folder.exists()  # the folder of an active run is not swept
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_run_is_swept_at_the_next_start(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from grpo_gsm8k.transport.weights_store import WeightsStore\n"
        "with WeightsStore(Path(sys.argv[1]), Path('dead')) as store:\n"
        "    store.incarnation_folder(0); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.rglob("dead.*/i0"))  # the fault left something
    with WeightsStore(tmp_path, Path("next")) as store:
        assert list(tmp_path.glob("*/*")) == [store.root]


def test_what_a_killed_learner_was_publishing_is_deleted_when_the_next_one_starts(tmp_path: Path) -> None:
    """Killed while it writes, or before anybody has heard of the new version: nobody else would delete it."""

    def killed(folder: Path, version: int, written: bool) -> None:
        def write(aside: Path) -> dict[str, str]:
            abcd(aside)
            if not written:
                os.kill(os.getpid(), signal.SIGKILL)
            return {}

        child = os.fork()
        if child == 0:
            weights.publish(folder, version, "model", 4, write, CANARY)
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    with WeightsStore(tmp_path, Path("run")) as store:
        first = store.incarnation_folder(0)
        known = weights.publish(first, 0, "model", 4, abcd, CANARY)
        killed(first, 1, written=False)
        killed(first, 2, written=True)
        assert len(list(first.iterdir())) == 3  # the faults left something
        second = store.incarnation_folder(1, [known])
        assert list(first.iterdir()) == [Path(known.path)]
        assert list(second.iterdir()) == []
        assert weights.verify(known).ref == known


def test_runs_that_start_and_end_at_the_same_time(tmp_path: Path) -> None:
    """The last run to end removes the common folder, possibly while another run starts."""

    def start_and_end(name: str) -> int:
        for _ in range(200):
            with WeightsStore(tmp_path, Path(name)) as store:
                assert store.root.is_dir()
        return 200

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(start_and_end, "abcd")) == 800
    assert list(tmp_path.iterdir()) == []


def test_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with WeightsStore(tmp_path, Path("run")) as store:
            ref = weights.publish(store.incarnation_folder(0), 0, "model", 4, abcd, CANARY)
            for path in [store.root.parent, store.root, *store.root.rglob("*")]:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
            assert weights.verify(ref).canary == CANARY
    finally:
        os.umask(before)


def test_a_folder_that_others_could_write_to_is_refused(tmp_path: Path) -> None:
    base = tmp_path / f"grpo_gsm8k.{os.getuid()}"
    base.mkdir()
    base.chmod(0o777)
    os.mkfifo(base / "waits_forever_when_opened")
    with pytest.raises(UserError, match="has mode 0777, open to other users"):
        WeightsStore(tmp_path, Path("run")).__enter__()
    base.chmod(0o700)
    with WeightsStore(tmp_path, Path("run")):  # its own folder, so the odd file in it is ignored
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only a superuser can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    base = tmp_path / f"grpo_gsm8k.{os.getuid()}"
    base.mkdir(mode=0o700)
    os.chown(base, 12345, 12345)
    with pytest.raises(UserError, match="belongs to user 12345"):
        WeightsStore(tmp_path, Path("run")).__enter__()


def test_free_space_is_checked_before_writing(tmp_path: Path) -> None:
    old = weights.publish(tmp_path, 0, "model", 4, abcd, CANARY)
    with pytest.raises(WeightsError, match="enlarge /dev/shm"):
        weights.publish(tmp_path, 1, "model", 1 << 60, lambda path: pytest.fail("wrote"), CANARY)
    assert weights.verify(old).ref.version == 0
    assert [p.name for p in tmp_path.iterdir()] == ["v0"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> dict[str, str]:
        (path / weights.MODEL_FILE).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WeightsError, match="No space left"):
        weights.publish(tmp_path, 1, "model", 4, fail, CANARY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    ref = weights.publish(tmp_path, 1, "model", 4, abcd, CANARY)
    file = Path(ref.path) / weights.MODEL_FILE
    {"flip": lambda: file.write_bytes(b"abcX"), "truncate": lambda: file.write_bytes(b"abc"), "missing": file.unlink}[
        damage
    ]()
    with pytest.raises(WeightsError, match="version 1"):
        weights.verify(ref)
    with pytest.raises(WeightsError):
        weights.verify(WeightsRef(2, ref.path))


def test_the_memory_of_a_deleted_model_is_used_again(tmp_path: Path) -> None:
    """By the next version, also that of a restarted learner; one spare is kept, and none once the run has ended."""

    def model(content: bytes) -> Callable[[Path], dict[str, str]]:
        def write(folder: Path) -> dict[str, str]:
            file = folder / weights.MODEL_FILE
            with file.open("r+b" if file.exists() else "wb") as out:
                out.write(content)
                out.truncate()
            return {}

        return write

    def file_of(ref: WeightsRef) -> Path:
        return Path(ref.path) / weights.MODEL_FILE

    with WeightsStore(tmp_path, Path("run")) as store:
        first, second = store.incarnation_folder(0), store.incarnation_folder(1)
        old = [weights.publish(first, i, "model", 4, model(b"old" * (i + 1)), CANARY) for i in range(2)]
        kept = file_of(old[1]).stat().st_ino
        for ref in old:
            weights.delete(ref)
        assert [path.stat().st_ino for path in store.root.rglob("*") if path.is_file()] == [kept]
        adapter = weights.publish(second, 1, "adapter", 4, abcd, CANARY)
        assert file_of(adapter).stat().st_ino != kept
        new = weights.publish(second, 2, "model", 4, model(b"new"), CANARY)
        assert file_of(new).stat().st_ino == kept
        assert file_of(new).read_bytes() == b"new"
        assert weights.verify(new).ref == new
        assert stat.S_IMODE(file_of(new).stat().st_mode) == 0o600
        assert file_of(weights.publish(second, 3, "model", 4, model(b"next"), CANARY)).stat().st_ino != kept
    assert list(tmp_path.iterdir()) == []


def test_the_spare_counts_as_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version fits into the memory of the spare when nothing else is free."""
    with WeightsStore(tmp_path, Path("run")) as store:
        folder = store.incarnation_folder(0)
        weights.delete(weights.publish(folder, 0, "model", 4, abcd, CANARY))
        usage = shutil.disk_usage(tmp_path)._replace(free=weights.MARGIN_BYTES)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        assert weights.publish(folder, 1, "model", 4, abcd, CANARY).version == 1
        with pytest.raises(WeightsError, match="enlarge /dev/shm"):
            weights.publish(folder, 2, "model", 4, abcd, CANARY)
