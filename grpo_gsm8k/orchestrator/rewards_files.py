"""A run's rewards files: read once, checked before anything starts, and kept in the run folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.grading.rewards import validate_reward_weights
from grpo_gsm8k.grading.user_rewards import UserRewards
from grpo_gsm8k.tracking.redaction import without_secrets

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder

_KEY = "policy_gradient.rewards_file"


@dataclass(frozen=True, slots=True)
class RewardsFiles:
    """Content by file name; empty without `policy_gradient.rewards_file`."""

    contents: dict[str, bytes]

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each file, for the manifest."""
        return {f"rewards file {name}": hashlib.sha256(data).hexdigest() for name, data in self.contents.items()}

    def copy_to(self, run: RunFolder) -> None:
        """Write the copies that the run uses."""
        if self.contents:
            run.rewards.mkdir(exist_ok=True)
        for name, data in self.contents.items():
            write_atomically(run.rewards / name, data)


def read_rewards(config: Config, run: RunFolder | None) -> RewardsFiles:
    """Read the rewards files and check them together with the weights of the parts.

    `run`: a run that is resumed; its copies stand in for files that no longer exist. Raises UserError.
    """
    pg = config.policy_gradient
    contents: dict[str, bytes] = {}
    for path in pg.rewards_files:
        if path.suffix != ".py":
            raise UserError(f"{_KEY}={path}: the name does not end in .py: name a Python file")
        if path.name in contents:
            raise UserError(f"{_KEY}: two files are called {path.name}: rename one")
        contents[path.name] = _content(path, run)
    if not contents:
        validate_reward_weights(pg.rewards)
        return RewardsFiles({})
    with tempfile.TemporaryDirectory(prefix="rewards_") as folder:
        for name, data in contents.items():
            (Path(folder) / name).write_bytes(data)
        files = [Path(folder) / name for name in contents]
        rewards = UserRewards(files, pg.reward_limits(config.seed), without_secrets(os.environ), children=1)
        try:
            rewards.check(pg.rewards)
        finally:
            rewards.close()
    return RewardsFiles(contents)


def _content(path: Path, run: RunFolder | None) -> bytes:
    kept = None if run is None else run.rewards / path.name
    found = kept if kept is not None and not path.exists() and kept.is_file() else path
    try:
        return found.read_bytes()
    except OSError as error:
        raise UserError(f"{_KEY}={path} cannot be read: {error.strerror}: name an existing file") from None
