"""`command=push` with a local fake of the Hub's HTTP API: real requests and uploads without a network."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cli import load_config, main
from grpo_gsm8k.commands import push as push_command
from grpo_gsm8k.commands.push import push_model
from grpo_gsm8k.commands.upload import Upload
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from tests.commands.fake_hub import TOKEN, Hub
from tests.commands.finished_runs import PG, make_run
from tests.conftest import Cli


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def run(cli: Cli) -> Path:
    return make_run(cli.artifacts, "0_demo")


def push(cli: Cli, hub: Hub, run: Path, *words: str, token: str = TOKEN) -> tuple[int, str]:
    """Push a run; returns the exit code and the last line on stderr."""
    done = cli.run(
        "command=push", f"run={run}", "push.repo_id=me/model", *words, env={**environment(hub, token), "HOME": "/tmp"}
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def environment(hub: Hub, token: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


def test_a_checkpoint_is_uploaded_with_its_card(cli: Cli, hub: Hub, run: Path) -> None:
    done = cli.run("command=push", f"run={run}", "push.repo_id=me/model", env=environment(hub, TOKEN))
    assert done.returncode == 0, done.stderr
    (created,) = hub.created
    assert created["visibility"] == "private"
    sent = {file.name for file in EMBEDDED_TINY.iterdir()} | {"README.md"}
    assert set(hub.files) == sent
    weights = (EMBEDDED_TINY / "model.safetensors").read_bytes()
    assert hashlib.sha256(hub.files["model.safetensors"]).digest() == hashlib.sha256(weights).digest()
    card = hub.files["README.md"].decode()
    assert card.index("| 0 | 20.0 % | 17.0 to 24.0 % | 512 |") < card.index("| 3 | 50.0 % | 45.0 to 55.0 % | 512 |")
    assert card.startswith("---\n")


def test_a_refused_token_is_a_one_line_error(cli: Cli, hub: Hub, run: Path) -> None:
    done = cli.run("command=push", f"run={run}", "push.repo_id=me/model", env=environment(hub, "hf_wrong"))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: push.repo_id=me/model: ")
    assert "HF_TOKEN" in last
    assert "hf_wrong" not in done.stderr + done.stdout
    assert hub.files == {}


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("/validate-yaml", 400, 'Metadata validation error: "license" must be one of [...]'),
        ("/repos/create", 400, "me/model: a name must not end with a dot"),
        ("/commit/main", 429, "We had to rate limit you, retry in 60 minutes"),
        ("/commit/main", 403, "Your token cannot write to me/model"),
    ],
)
def test_a_refusal_is_given_in_the_hubs_own_words(
    cli: Cli, hub: Hub, run: Path, end: str, status: int, reason: str
) -> None:
    hub.refusals = {end: (status, reason)}
    code, last = push(cli, hub, run)
    assert code == 1
    assert reason in last
    assert ("HF_TOKEN" in last) == (status == 403)
    assert (hub.files, hub.commits) == ({}, 0)
    assert (
        hub.objects == {} or end == "/commit/main"
    )  # the large files are sent before the commit, the card is checked first


def test_an_unreachable_hub_is_a_one_line_error(cli: Cli, hub: Hub, run: Path) -> None:
    hub.server_close()
    hub.address = "http://127.0.0.1:9"
    code, last = push(cli, hub, run)
    assert code == 1
    assert last.startswith("error: push.repo_id=me/model: ")
    assert "HF_TOKEN" not in last


def test_a_public_repository_does_not_get_a_private_model(cli: Cli, hub: Hub, run: Path) -> None:
    hub.private = False
    code, last = push(cli, hub, run)
    assert code == 2
    assert "push.repo_id=me/model is public: set push.private=false" in last
    assert hub.files == {}


def test_files_of_an_earlier_upload_do_not_stay_with_the_new_ones(cli: Cli, hub: Hub, run: Path) -> None:
    hub.present = ["adapter_config.json", "model-00001-of-00002.safetensors", "model.safetensors", "notes.md"]
    assert push(cli, hub, run)[0] == 0
    assert sorted(hub.deleted) == ["adapter_config.json", "model-00001-of-00002.safetensors"]
    assert hub.commits == 1


def test_an_adapter_names_its_base_on_the_hub(cli: Cli, hub: Hub) -> None:
    known = {"base_model": {"hub_id": "owner/base", "commit": "c" * 40}}
    run = make_run(cli.artifacts, "1_lora", *PG, "learner=lora", "model.path=owner/base", adapter=True, manifest=known)
    assert push(cli, hub, run)[0] == 0
    named = json.loads(hub.files["adapter_config.json"])
    assert (named["base_model_name_or_path"], named["revision"], named["r"]) == ("owner/base", "c" * 40, 8)
    card = ModelCard(hub.files["README.md"].decode())
    assert (card.data.library_name, card.data.base_model) == ("peft", "owner/base")
    assert not [name for name, content in hub.files.items() if b"planted" in content]


def lora_run(cli: Cli, base: str) -> Path:
    return make_run(cli.artifacts, "1_lora", *PG, "learner=lora", f"model.path={base}", adapter=True)


@pytest.mark.parametrize("what", ["auto", "adapter"])
def test_an_adapter_that_nobody_could_load_is_refused(cli: Cli, run: Path, what: str) -> None:
    lora_run(cli, str(run / "checkpoints" / "step_3" / "model"))
    words = ["command=push", "run=20260101-000001_lora", "push.repo_id=me/model", f"push.what={what}"]
    with pytest.raises(UserError, match=r"push\.what=merged, after python cli\.py command=merge run=\S+_lora"):
        push_model(load_config([*words, f"artifacts={cli.artifacts}"]))


def test_the_merged_model_is_uploaded_only_if_it_is_that_of_the_checkpoint(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lora_run(cli, "embedded:tiny")
    sent: list[Upload] = []
    monkeypatch.setattr(push_command, "send", lambda upload, card, private: sent.append(upload))

    def forms(what: str) -> str:
        words = ["command=push", f"run={run}", "push.repo_id=me/model", f"push.what={what}"]
        push_model(load_config([*words, f"artifacts={cli.artifacts}"]))
        return sent[-1].form

    assert (forms("auto"), forms("adapter")) == ("adapter", "adapter")
    with pytest.raises(UserError, match=r"is missing: first python cli\.py command=merge"):
        forms("merged")
    merged = run / "merged" / "step_3"
    merged.mkdir(parents=True)
    (merged / "model.safetensors").write_bytes(b"merged")
    assert (forms("auto"), forms("merged"), forms("adapter")) == ("merged", "merged", "adapter")
    os.utime(merged, (1, 1))
    with pytest.raises(UserError, match="older than the checkpoint: delete it"):
        forms("auto")


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["command=push", "run=latest"], "push.repo_id"),
        (["command=push", "push.repo_id=me/model"], "needs run="),
        *(
            (["command=push", "run=latest", f"push.repo_id={bad}"], "push.repo_id=")
            for bad in ("", "x", "a/b/c", "a/b.")
        ),
        (["command=push", "run=latest", "push.repo_id=me/model", "push.what=merged"], "set push.what=auto"),
        (["command=push", "run=latest", "push.repo_id=me/model", "push.what=adapter"], "set push.what=auto"),
        (["command=merge", "run=latest"], "trained without an adapter"),
        (["command=merge", "run=latest", "step=9"], "step=9"),
        (["command=replay", "run=latest", "step=2"], "policy_gradient.record=true"),
        (["command=replay", "run=latest"], "step=<N>"),
    ],
)
def test_refused(cli: Cli, run: Path, arguments: list[str], needle: str, capfd: pytest.CaptureFixture[str]) -> None:
    code = main([*arguments, f"artifacts={cli.artifacts}"])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2, last
    assert needle in last
