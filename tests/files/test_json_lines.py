"""JSON lines: appends, repair of a torn line, atomic rewrites, a full disk."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from grpo_gsm8k.errors import DiskFullError, IntegrityError, UserError
from grpo_gsm8k.files.json_lines import JsonLines, read_json, read_lines


def test_json_lines_append_and_keep(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    lines = JsonLines(path)
    for number in range(4):
        lines.append({"step": number, "text": "ü\n\u2028"})
    assert len(path.read_bytes().split(b"\n")) == 5
    assert [r["step"] for r in lines.keep(lambda r: r["step"] < 2)] == [2, 3]
    lines.append({"step": 9})
    with pytest.raises(ValueError, match="JSON compliant"):
        lines.append({"step": float("nan")})
    lines.close()
    lines.close()
    again = JsonLines(path)
    assert [r["step"] for r in again.records()] == [0, 1, 9]
    assert again.repaired_bytes == 0


@pytest.mark.parametrize(("tail", "left", "torn"), [(b'{"a": 2', 1, 7), (b'{"a": 2}', 2, 0), (b"\0\0\0", 1, 3)])
def test_json_lines_repairs_the_last_line_only(tmp_path: Path, tail: bytes, left: int, torn: int) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n' + tail)
    lines = JsonLines(path)
    lines.append({"a": 3})
    assert lines.repaired_bytes == torn
    assert [r["a"] for r in lines.records()] == [1, 2, 3][:left] + ([3] if left < 3 else [])
    path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(IntegrityError, match="line 2 is damaged"):
        JsonLines(path)


def test_json_lines_refuses_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "m.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        JsonLines(tmp_path / "m.jsonl")


def test_json_lines_without_space_stay_whole(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "m.jsonl")
    lines.append({"a": "x" * 80})
    before = lines.path.read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # the second line only fits partly
    try:
        with pytest.raises(DiskFullError, match=r"m\.jsonl was not written: File too large, \d+ bytes are needed"):
            lines.append({"a": "y" * 80})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert lines.path.read_bytes() == before


def test_read_json_names_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text('{"a": [1, 2]}\n')
    assert read_json(path) == {"a": [1, 2]}
    for size in range(13):
        path.write_text('{"a": [1, 2]}'[:size])
        with pytest.raises(UserError, match=r"summary\.json is cut short or damaged: restore"):
            read_json(path)


def test_read_lines_leaves_a_torn_last_line_out_and_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert read_lines(path) == [{"a": 1}]
    assert path.read_text() == '{"a": 1}\n{"a": 2'
    path.write_text('{"a"\n{"a": 2}\n')
    with pytest.raises(IntegrityError, match="line 1 is damaged"):
        read_lines(path)
