"""Checks before the engine starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.setup import check_token_ids


@pytest.mark.parametrize(
    ("stops", "prompt", "problem"),
    [((1,), [3, 99], "prompts need token id 99"), ((1, 120), [3], "stop tokens include 120")],
)
def test_token_ids_beyond_the_embedding(
    stops: tuple[int, ...], prompt: list[int], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 99}))
    check_token_ids(tmp_path, (1,), [np.array([98])])
    with pytest.raises(UserError, match=f"{problem}, but the embedding has 99 rows"):
        check_token_ids(tmp_path, stops, [np.array(prompt)])
