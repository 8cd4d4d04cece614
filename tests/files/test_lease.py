"""Leases on folders, for machines that do not see each other's locks: the owners are processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files import lease

OWNER = """
import sys
from pathlib import Path
from grpo_gsm8k.files import lease
lease.BEAT_SECONDS = 0.2
with lease.leased(Path(sys.argv[1]), sys.argv[2], print):
    print("owned", flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner(folder: Path, machine: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease on a folder as if it ran on `machine`."""
    command = [sys.executable, "-c", OWNER, str(folder), machine]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 2.0)
    return []


def test_a_living_owner_on_another_machine_is_refused(tmp_path: Path, told: list[str]) -> None:
    with owner(tmp_path, "elsewhere") as other:
        expected = rf"is in use by host \S+ \(process {other.pid}\): wait for it, or stop it there"
        with pytest.raises(UserError, match=expected), lease.leased(tmp_path, "here", told.append):
            pytest.fail("two owners")
    assert len(told) == 1


def test_a_dead_owner_is_succeeded(tmp_path: Path, told: list[str]) -> None:
    with owner(tmp_path, "elsewhere") as other:
        other.kill()
        other.wait()
    assert (tmp_path / lease.NAME).exists()
    with lease.leased(tmp_path, "here", told.append):
        pass
    assert list(tmp_path.iterdir()) == []
    assert len(told) == 1


def test_on_the_same_machine_the_lock_is_enough(tmp_path: Path, told: list[str]) -> None:
    with owner(tmp_path, "here") as other:
        other.kill()
        other.wait()
    with lease.leased(tmp_path, "here", told.append):
        pass
    assert told == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_file_counts_as_an_unknown_owner(tmp_path: Path, told: list[str], content: bytes) -> None:
    (tmp_path / lease.NAME).write_bytes(content)
    with lease.leased(tmp_path, "here", told.append):
        pass
    assert len(told) == 1


def test_a_planted_link_is_refused(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / lease.NAME).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="is a link: remove it"), lease.leased(tmp_path, "here", told.append):
        pass
