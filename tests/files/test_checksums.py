"""Manifests, atomic writes, folders that are replaced whole, and JSON lines."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grpo_gsm8k.errors import IntegrityError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.files.aside import make_private, make_private_folder, replace_folder, write_atomically
from grpo_gsm8k.files.json_lines import JsonLines


@pytest.fixture
def umask_zero():
    previous = os.umask(0)
    yield
    os.umask(previous)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def make_folder(path: Path) -> Path:
    (path / "model").mkdir(parents=True)
    (path / "model" / "weights.bin").write_bytes(os.urandom(100_000))
    (path / "state.json").write_text('{"step": 7}')
    (path / "empty").write_bytes(b"")
    checksums.write_manifest(path, {"step": 7, "canary": {"ids": (1, 2), "logprobs": [-0.1, -1e-9]}})
    return path


def test_verify_returns_what_was_written(tmp_path: Path) -> None:
    manifest = checksums.verify(make_folder(tmp_path / "a"))
    assert manifest["step"] == 7
    assert manifest["canary"] == {"ids": [1, 2], "logprobs": [-0.1, -1e-9]}
    assert sorted(manifest["files"]) == ["empty", "model/weights.bin", "state.json"]
    assert manifest["files"]["model/weights.bin"]["size"] == 100_000


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def symlink_instead(path: Path) -> None:
    target = path.parent.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


DAMAGES = {
    "flipped": (lambda f: flip(f / "model/weights.bin", 77_777), r"model/weights.bin: damaged"),
    "truncated": (lambda f: truncate(f / "model/weights.bin"), r"model/weights.bin: 99999 bytes instead of 100000"),
    "missing": (lambda f: (f / "state.json").unlink(), r"state.json: missing"),
    "extra": (lambda f: (f / "model/evil.pkl").write_bytes(b"x"), r"model/evil.pkl: not listed"),
    "symlink": (lambda f: symlink_instead(f / "model/weights.bin"), r"model/weights.bin: no regular file"),
    "linked folder": (lambda f: (f / "linked").symlink_to("/usr"), r"linked: not listed"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), r"no manifest.json"),
    "manifest torn": (lambda f: os.truncate(f / "manifest.json", 40), r"manifest.json is damaged"),
    "manifest value": (
        lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace('"step": 7', '"step": 8')),
        r"manifest.json is damaged",
    ),
    "manifest is a list": (lambda f: (f / "manifest.json").write_text("[]"), r"manifest.json is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_verify_names_file_and_reason(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    folder = make_folder(tmp_path / "a" / "b")
    damage(folder)
    with pytest.raises(IntegrityError, match=message):
        checksums.verify(folder)


def test_verify_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="incomplete or not ours"):
        checksums.verify(tmp_path / "nothing")


def test_extra_may_not_hide_the_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        checksums.write_manifest(tmp_path, {"files": {}})


def test_private_modes_hold_under_umask_zero(tmp_path: Path, umask_zero: None) -> None:
    folder = tmp_path / "private"
    make_private_folder(folder)
    assert mode_of(folder) == 0o700
    write_atomically(folder / "a", b"x", 0o600)
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_text("y")
    assert mode_of(folder / "sub" / "b") == 0o666  # the umask really is 000
    make_private(folder)
    assert [mode_of(folder / name) for name in ("a", "sub", "sub/b")] == [0o600, 0o700, 0o600]


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomically(path, "old")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert path.read_text() == "old"


def test_write_atomically_survives_kill(tmp_path: Path) -> None:
    path = tmp_path / "state"
    code = (
        "import sys; from pathlib import Path; from grpo_gsm8k.files.aside import write_atomically\n"
        "while True:\n  for c in b'ab': write_atomically(Path(sys.argv[1]), bytes([c]) * 3_000_000)\n"
    )
    for delay in (0.0, 0.004, 0.011):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        seen = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == seen:
            time.sleep(0.001)
            assert process.poll() is None
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


@pytest.mark.parametrize("durable", [False, True])
def test_replace_folder(tmp_path: Path, durable: bool) -> None:
    final = tmp_path / "step_5"
    (tmp_path / ".step_5.01234567.old").mkdir()  # left by an earlier crash
    for text in ("first", "second"):
        aside = tmp_path / ".aside"
        aside.mkdir()
        (aside / text).write_text(text)
        replace_folder(aside, final, durable)
        assert [p.name for p in final.iterdir()] == [text]
        assert [p.name for p in tmp_path.iterdir()] == ["step_5"]


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
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # the second line fits in part only
    try:
        with pytest.raises(OSError, match="too large"):
            lines.append({"a": "y" * 80})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert lines.path.read_bytes() == before
