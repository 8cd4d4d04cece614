"""A hub that resets connections or never answers: a one-line error in bounded time, before an engine starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.data import hub_server

pytestmark = pytest.mark.slow
WORDS = {
    "data": ("command=data", "preset=cpu_demo", "data.source=hub", "data.hub_id=owner/name", "data.test_split=null"),
    "model": ("command=policy_gradient", "preset=cpu_demo", "wandb.mode=off", "model.path=owner/name"),
}
ERRORS = {
    "data": "error: data.hub_id=owner/name at aaaaaaaaaaaa is neither reachable nor cached (",
    "model": "error: model.path=owner/name is neither reachable on the hub nor cached (",
}
# Six tries of each request with growing pauses, by the hub's client, and the start on a busy machine.
BOUND_SECONDS = 240


# A hub that is silent for files alone ends after six tries of 60 s, which the client's code fixes: too long for a test.
@pytest.mark.parametrize(
    ("files_only", "silent"), [(False, False), (False, True), (True, False)], ids=["reset", "silent", "files_reset"]
)
@pytest.mark.parametrize("what", WORDS)
def test_a_broken_hub(cli: Cli, tmp_path: Path, what: str, files_only: bool, silent: bool) -> None:
    revision = f"{what}.revision={hub_server.COMMIT}"
    began = time.monotonic()
    with hub_server.serve(silent, files_only) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        }
        done = cli.run(*WORDS[what], revision, env=environment)
    assert hub.broken > 0  # the fault fired
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(ERRORS[what])
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < BOUND_SECONDS
    assert cli.runs() == []
