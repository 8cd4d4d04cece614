"""Locks on folders: exclusive between processes, released when their owner exits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from grpo_gsm8k.files.locks import try_lock


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from grpo_gsm8k.files.locks import try_lock\n"
        "print(try_lock(Path(sys.argv[1])) is not None, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert try_lock(tmp_path) is None
        owner.kill()
    lock = try_lock(tmp_path)
    assert lock is not None
    assert try_lock(tmp_path) is None  # another descriptor of the same process does not share it
    os.close(lock)
