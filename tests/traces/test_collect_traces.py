"""Settings of command=traces that are refused before any request."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main

TRACES = ["command=traces", "data=chain_sum", "data.train_size=20", "data.val_size=5", "data.test_size=5"]
REFUSED = [
    (["traces.api_key_env=NO_SUCH_KEY_SET"], "NO_SUCH_KEY_SET is not set"),
    (["traces.api_key_env=ODD_KEY"], "ODD_KEY is not a key"),
    (["traces.api_key_env=GOOD_KEY", "traces.base_url=http://me:secret@localhost/v1"], "without a user name"),
    (["traces.api_key_env=GOOD_KEY", "traces.base_url=http://localhost:port/v1"], "traces.base_url"),
]


@pytest.mark.parametrize(("arguments", "needle"), REFUSED, ids=[needle for _, needle in REFUSED])
def test_refused(
    arguments: list[str],
    needle: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY_SET", raising=False)
    monkeypatch.setenv("ODD_KEY", "two words\n")
    monkeypatch.setenv("GOOD_KEY", "k")
    assert main([*TRACES, *arguments, f"artifacts={tmp_path}"]) == 2
    assert needle in capfd.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
