"""The live report as a process: it follows a run, serves only what its page needs, and ends by Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from grpo_gsm8k.command_line.loading import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.report import live_page
from grpo_gsm8k.report.live_page import BuiltPage, LivePage
from grpo_gsm8k.report.live_server import LiveServer, answering
from tests.conftest import REPO
from tests.report import recorded
from tests.report import runs as made

DEADLINE_S = 60


def unfinished(tmp_path: Path) -> Path:
    folder = made.training(tmp_path / "runs", "one", updates=3)
    (folder / "summary.json").unlink()
    return folder


class Process(NamedTuple):
    process: subprocess.Popen[str]
    url: str

    def get(self, path: str = "") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def state(self) -> str:
        return str(json.loads(self.get("live")[1])["build"])


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Process]:
    unfinished(tmp_path)
    command = [sys.executable, "cli.py", "command=report", "report.runs=[one]", "report.live=true"]
    process = subprocess.Popen(
        # as a shell starts its background jobs, which ignore SIGINT
        ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command, f"artifacts={tmp_path}"],
        cwd=REPO,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    found = re.match(r"(http://127\.0\.0\.1:\d+/) ", line := process.stdout.readline())
    assert found, line
    yield Process(process, found[1])
    process.kill()
    process.wait()


@pytest.mark.slow
def test_it_follows_an_unfinished_run_and_ends_by_ctrl_c(live: Process, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "runs").iterdir()
    files = sorted(folder.rglob("*"))
    status, page = live.get()
    assert status == 200
    assert "not finished, 3 updates" in page
    first = live.state()
    assert f'data-build="{first}"' in page
    assert "connect-src &#39;self&#39;" in page
    time.sleep(3)
    assert live.state() == first  # nothing has changed
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "train/reward_mean": 1.0}) + '\n{"step": 5, "tra')
    recorded.rollouts(folder, 4, [recorded.row("q", True, "brand new </script>")])
    until = time.monotonic() + DEADLINE_S
    while live.state() == first:
        assert time.monotonic() < until
        time.sleep(0.2)
    page = live.get()[1]
    assert "not finished, 4 updates" in page
    assert "brand new \\u003c/script\\u003e" in page
    (folder / "rollouts" / "step_4.parquet").unlink()
    assert {*folder.rglob("*")} == {*files, folder / "rollouts"}  # the server writes nothing
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(DEADLINE_S) == 0
    assert live.process.communicate()[0] == "\nended\n"


def test_a_taken_port_is_refused() -> None:
    page = LivePage(lambda _: "", [], Path("/"), "/report.html")
    with LiveServer(page, 0) as first:
        message = rf"^report\.port={first.server_port} on 127.0.0.1: Address already in use: choose another"
        with pytest.raises(UserError, match=message):
            LiveServer(page, first.server_port)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["command=report", "report.port=8000"], "port=8000 has no effect with live=false: set report.live=true"),
        (["command=report", "report.live=true", "report.output=/x"], "output has no effect with live=true, which"),
        (["command=sft", "report.live=true"], "report.live=true has no effect with command=sft: start command=report"),
    ],
)
def test_keys_without_effect_are_refused(keys: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_only_the_page_and_what_it_links_to_are_served(tmp_path: Path) -> None:
    folder = unfinished(tmp_path)
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "step_1.parquet").write_bytes(b"PAR1\0")
    (folder / "rollouts" / "link.parquet").symlink_to("/etc/passwd")
    (folder / "secret.txt").write_text("secret")
    (folder / "events.jsonl").unlink()
    (folder / "events.jsonl").symlink_to("/etc/passwd")
    links = ("./metrics.jsonl", "rollouts/", "../outside", "events.jsonl", "https://example.org/x", "/etc/passwd", "#x")
    (folder.parent / "outside").write_text("outside")
    text = "".join(f'<a href="{link}">x</a>' for link in links)
    address = f"/{folder.name}"
    page = LivePage(lambda name: text + name, [folder], folder.parent, f"{address}/report.html")
    assert set(page.current.linked) == {f"{address}/metrics.jsonl", f"{address}/rollouts/"}
    with LiveServer(page, 0) as server, answering(server):
        assert ask(server, f"{address}/report.html") == (200, text + page.current.name)
        assert ask(server, f"{address}/metrics.jsonl")[0] == 200
        assert ask(server, f"{address}/rollouts/step_1.parquet") == (200, "PAR1\0")
        assert '<a href="step_1.parquet">' in ask(server, f"{address}/rollouts/")[1]
        assert ask(server, "/")[0] == 302
        for path in ("/secret.txt", "/events.jsonl", "/rollouts/link.parquet", "/rollouts/../secret.txt"):
            assert ask(server, address + path)[0] == 404, path
        for path in ("/rollouts/%2e%2e/secret.txt", "/rollouts/..", "//etc/passwd", "/rollouts/\0", "/../outside"):
            assert ask(server, path)[0] == 404, path
            assert ask(server, address + path)[0] == 404, path
        assert ask(server, "/outside")[0] == 404
        assert ask(server, f"{address}/report.html", host="evil.example:1")[0] == 403
        assert ask(server, f"{address}/report.html", method="POST")[0] == 501


def ask(server: LiveServer, path: str, host: str = "127.0.0.1:1", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=DEADLINE_S)
    connection.putrequest(method, path.replace("\0", "%00"), skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_it_is_built_again_only_after_a_change_and_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unfinished(tmp_path)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def build(name: str) -> str:
        now[0] += 3  # seconds that a build takes
        return name

    page = LivePage(build, [folder], folder, "/report.html")
    first = page.current
    now[0] = 100.0
    assert not page.refresh()
    (folder / "report.html").write_text("written by the run itself")
    assert not page.refresh()
    os.utime(folder / "metrics.jsonl", ns=(1, 1))
    assert page.refresh()
    assert page.current.name != first.name
    (folder / "summary.json").write_text("{}")
    now[0] += 14
    assert not page.refresh()  # a pause of five times the build
    now[0] += 2
    assert page.refresh()
    assert page.builds == 3


def test_a_build_that_fails_is_repeated_and_the_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_page, "PAUSE_S", 0.0)
    monkeypatch.setattr(live_page, "PAUSE_PER_BUILD_S", 0.0)
    failures: list[Exception] = []

    def build(name: str) -> str:
        if failures:
            raise failures.pop()
        return name

    folder = unfinished(tmp_path)
    page = LivePage(build, [folder], folder, "/report.html")
    first = page.current
    failures.append(FileNotFoundError("gone"))
    (folder / "summary.json").write_text("{}")
    with pytest.raises(FileNotFoundError):
        page.refresh()
    assert page.current is first
    assert page.refresh()  # without another change
    assert page.current is not first


def test_several_runs_are_served_below_their_common_folder(tmp_path: Path) -> None:
    folders = [made.training(tmp_path / "runs", name) for name in ("a", "b")]
    text = f'<a href="../../runs/{folders[1].name}/metrics.jsonl">x</a>'
    page = LivePage(lambda _: text, folders, tmp_path, "/reports/now/report.html")
    address = f"/runs/{folders[1].name}/metrics.jsonl"
    assert page.current.linked == {address: folders[1] / "metrics.jsonl"}
    assert BuiltPage(b"", "", {}).file(address) is None
