"""Folders that appear whole or not at all: written aside in the same parent, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` that becomes `target` when the block ends without an error.

    An older `target` is replaced. After an error nothing is left behind and `target` is as it was. Raises UserError
    when `target` is a symbolic link or no folder: what it points to is not ours to write.
    """
    refuse_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _sibling(target)
    aside.mkdir()
    try:
        yield aside
        _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_link(target: Path) -> None:
    """Raise UserError unless `target` is a real folder or absent."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target} is a link or a file, and a folder is to be written there: move it away")


def _sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")


def _replace(aside: Path, target: Path) -> None:
    if not target.exists():
        aside.rename(target)
        return
    old = _sibling(target)
    target.rename(old)
    aside.rename(target)
    shutil.rmtree(old)
