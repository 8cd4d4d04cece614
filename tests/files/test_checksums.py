"""Manifests: what `verify` accepts, and the file and reason that it names otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grpo_gsm8k.errors import IntegrityError
from grpo_gsm8k.files import checksums


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
    "symlink": (lambda f: symlink_instead(f / "model/weights.bin"), r"model/weights.bin: not a regular file"),
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
    with pytest.raises(IntegrityError, match="it is incomplete"):
        checksums.verify(tmp_path / "nothing")


def test_extra_may_not_hide_the_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files"):
        checksums.write_manifest(tmp_path, {"files": {}})
