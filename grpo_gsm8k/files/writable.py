"""Checks of configured folders before anything is written to them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from grpo_gsm8k.errors import UserError


def check_folder(key: str, path: Path) -> None:
    """Raise UserError unless `path` is a folder that can be written, or can be created.

    Permissions do not tell: a superuser has them in a read-only file system as well. So a folder is made and removed.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{key}={path} is a dangling link: create its target, or set {key} to a folder")
        place = path
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            what = "is" if place == path else f"lies below {place}, which is"
            raise UserError(f"{key}={path} {what} not a folder: set {key} to a folder")
        os.rmdir(tempfile.mkdtemp(prefix=".writable-", dir=place))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{key}={path} cannot be written ({reason}): set {key} to a writable folder") from None
