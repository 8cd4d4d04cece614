"""`command=push` with a local fake of the Hub's HTTP API: real requests and uploads without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import load_config, main
from grpo_gsm8k.models import EMBEDDED_TINY
from tests.conftest import Cli

TOKEN = "hf_fake"


class Hub(ThreadingHTTPServer):
    """A fake Hugging Face Hub that stores what the client sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The routes that an upload uses."""

    server: Hub

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        self._answer({"id": "me/model", "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/me/model"})
        elif self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
            self._answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._upload_of(o) for o in json.loads(body)["objects"]]})
        elif self.path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
            url = f"{self.server.address}/me/model/commit/{'1' * 40}"
            self._answer({"commitUrl": url, "commitOid": "1" * 40, "pullRequestUrl": None})
        else:
            self._answer({})  # validation of the card, verification of an upload

    def _upload_of(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.server.address}/lfs/{item['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def run(cli: Cli) -> Path:
    """A run folder with one checkpoint and two validations."""
    folder = cli.artifacts / "runs" / "20260101-000000_demo"
    model = folder / "checkpoints" / "step_3" / "model"
    model.mkdir(parents=True)
    for file in EMBEDDED_TINY.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model.parent / "manifest.json").write_text("{}")
    config = load_config(["command=policy_gradient", "preset=cpu_demo"]).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [
        {
            "val/version": 3,
            "val/accuracy": 0.5,
            "val/accuracy_ci_low": 0.45,
            "val/accuracy_ci_high": 0.55,
            "val/n": 512,
        },
        {
            "val/version": 0,
            "val/accuracy": 0.2,
            "val/accuracy_ci_low": 0.17,
            "val/accuracy_ci_high": 0.24,
            "val/n": 512,
        },
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


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
    ("arguments", "needle"),
    [
        (["command=push", "run=latest"], "push.repo_id"),
        (["command=push", "push.repo_id=me/model"], "needs run="),
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
