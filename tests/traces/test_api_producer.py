"""The real command against a faulty server: nothing is lost, requested twice, or paid beyond the budget."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from grpo_gsm8k.traces import api_producer
from tests.conftest import Cli
from tests.traces.conftest import TracesCli, last_line
from tests.traces.teacher_server import KEY, STALL, Asked, Fault, Teacher, solve

pytestmark = pytest.mark.slow

PRICE_IN, PRICE_OUT = Decimal("0.28"), Decimal("0.42")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll while the process runs; if it ends early, fail with its output."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def paid(records: list[dict[str, object]]) -> Decimal:
    return sum((Decimal(str(record["cost_usd"])) for record in records), Decimal(0))


def price(tokens: tuple[int, int]) -> Decimal:
    return (tokens[0] * PRICE_IN + tokens[1] * PRICE_OUT) / 1_000_000


def everything_billed(teacher: Teacher) -> Decimal:
    return sum((price(tokens) for tokens in teacher.billed.values()), Decimal(0))


def in_doubt(traces: TracesCli) -> Decimal:
    """Return what requests without an answer are charged."""
    return Decimal(str(traces.report()["unanswered_requests_cost_usd_at_most"]))


def faults(asked: Asked) -> Fault | None:
    if asked.number % 40 == 3:
        return Fault(429, {"Retry-After": "1"})
    if asked.number % 40 == 17:
        return Fault(500)
    return Fault(0) if asked.number % 40 == 29 else None


def test_two_kills_lose_nothing_and_repeat_nothing(cli: Cli, teacher: Teacher) -> None:
    traces = TracesCli(cli, teacher.url, 200)
    teacher.fault, teacher.delay_s = faults, 0.02
    for lines in (70, 200):
        process = traces.start("traces.samples_per_prompt=2")
        wait_until(lambda enough=lines: len(traces.raw()) >= enough, process)  # type: ignore[misc]
        assert process.poll() is None
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert lines <= len(traces.done()) < 400
    with (traces.folder / "raw.jsonl").open("ab") as file:
        file.write(b'{"id": "torn')  # as after a kill during a write
    done = traces.run_process("traces.samples_per_prompt=2")
    assert done.returncode == 0, done.stderr
    assert "removed 12 bytes" in done.stdout

    records = traces.done()
    ids = Counter(record["id"] for record in records)
    assert len(ids) == len(records) == 400
    assert {record["sample"] for record in records} == {0, 1}
    assert all(record["correct"] for record in records)
    references = [record["reasoning"].split("(")[1].rstrip(").") for record in records]
    assert len(set(references)) == 400
    for record, reference in zip(records, references, strict=True):
        usage = record["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == teacher.billed[reference]
    assert paid(traces.raw()) == sum(price(teacher.billed[reference]) for reference in references)
    assert Decimal(str(traces.report()["cost_usd"])) == paid(traces.raw())
    assert everything_billed(teacher) <= paid(traces.raw()) + in_doubt(traces)
    assert 2 <= teacher.most_under_way <= 8

    asked = {question.question for question in teacher.asked}
    assert len(asked) == 200
    for split, expected in (("train", 200), ("val", 0), ("test", 0)):
        hits = sum(any(question in text for text in asked) for question in traces.questions(split))
        assert hits == expected
    written = [json.loads(line) for line in (traces.folder / "train.jsonl").read_text().splitlines()]
    assert traces.report()["kept"] == len(written) == 400
    assert [line["id"] for line in written] == [f"{name}/{n}" for name in traces.ids("train") for n in (0, 1)]
    assert all(line["response"].endswith(f"\n#### {solve(line['prompt'])}") for line in written)
    before = len(teacher.asked)
    again = traces.run("traces.samples_per_prompt=2", TEST_TEACHER_KEY="")  # nothing is missing, so no key is needed
    assert again.returncode == 0, again.stderr
    assert len(teacher.asked) == before
    assert_no_key(cli.artifacts, done, again)


def assert_no_key(folder: Path, *runs: subprocess.CompletedProcess[str]) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert not [run for run in runs if KEY in run.stdout + run.stderr]


def test_concurrency_is_bounded_and_used(traces: TracesCli, teacher: Teacher) -> None:
    teacher.delay_s = 0.2
    assert traces.run("traces.samples_per_prompt=3", "traces.concurrency=5").returncode == 0
    assert teacher.most_under_way == 5
    assert teacher.keys == {KEY}
    assert {asked.body["max_tokens"] for asked in teacher.asked} == {128}
    assert not any("temperature" in asked.body for asked in teacher.asked)


def test_the_budget_stops_before_it_is_exceeded_and_continues_when_raised(traces: TracesCli, teacher: Teacher) -> None:
    teacher.delay_s = 0.05
    limit = Decimal("0.0003")
    stopped = traces.run(f"traces.max_cost_usd={limit}", "traces.temperature=0.7")
    assert stopped.returncode == 1
    assert "traces.max_cost_usd=0.0003" in last_line(stopped)
    assert "of 10 samples are missing" in last_line(stopped)
    bill = everything_billed(teacher)
    assert 0 < bill == paid(traces.raw()) <= limit
    sent = [json.loads(line) for line in (traces.folder / "sent.jsonl").read_text().splitlines()]
    most = max(Decimal(line["most_usd"]) for line in sent)
    assert bill + most > limit * Decimal("0.95")  # less than about one request is left
    assert {asked.body["temperature"] for asked in teacher.asked} == {0.7}
    same = traces.run(f"traces.max_cost_usd={limit}", "traces.temperature=0.7")
    assert same.returncode == 1
    assert everything_billed(teacher) <= limit
    assert traces.run("traces.max_cost_usd=0.1", "traces.temperature=0.7").returncode == 0
    assert len(traces.done()) == 10


def test_tokens_have_a_limit_too(traces: TracesCli, teacher: Teacher) -> None:
    stopped = traces.run("traces.max_total_tokens=900", "traces.max_cost_usd=null")
    assert stopped.returncode == 1
    assert "traces.max_total_tokens=900" in last_line(stopped)
    assert 0 < sum(sum(tokens) for tokens in teacher.billed.values()) <= 900


@pytest.mark.parametrize(
    ("status", "needle"), [(401, "TEST_TEACHER_KEY"), (402, "balance"), (403, "traces.model"), (404, "base_url")]
)
def test_an_error_of_every_request_stops_the_command(
    status: int, needle: str, traces: TracesCli, teacher: Teacher, cli: Cli
) -> None:
    teacher.fault = lambda asked: Fault(status, message=f"refused: {KEY}")
    teacher.delay_s = 0.1  # so that several requests are refused at the same time
    done = traces.run("traces.concurrency=4")
    assert done.returncode == 2
    assert needle in last_line(done)
    assert done.stderr.count("\n") == 1
    assert len(teacher.asked) <= 4
    assert_no_key(cli.artifacts, done)


def test_one_bad_prompt_is_recorded_and_requested_again_later(traces: TracesCli, teacher: Teacher, cli: Cli) -> None:
    teacher.fault = lambda asked: Fault(400, message=f"too odd for {KEY}") if asked.number == 4 else None
    teacher.finish_reason = lambda asked: "length" if asked.number == 6 else "stop"
    first = traces.run()
    assert first.returncode == 1
    assert "1 of 10 samples are missing" in last_line(first)
    assert len(traces.done()) == 9
    assert [record["truncated"] for record in traces.done()].count(True) == 1
    assert_no_key(cli.artifacts, first)
    second = traces.run()
    assert second.returncode == 0, second.stderr
    assert len(teacher.asked) == 11  # the failed sample, once; the truncated one is done
    assert traces.report()["dropped"]["truncated"] == 1
    assert (traces.report()["traces"], traces.report()["kept"]) == (10, 9)


def test_retry_after_is_a_lower_bound_and_lost_connections_stay_charged(traces: TracesCli, teacher: Teacher) -> None:
    plan = {1: Fault(429, {"Retry-After": "3"}), 2: Fault(0)}
    teacher.fault = lambda asked: plan.get(asked.number)
    done = traces.run("traces.limit=1")
    assert done.returncode == 0, done.stderr
    times = [asked.at for asked in teacher.asked]
    assert len(times) == 3
    assert times[1] - times[0] >= 3
    assert "unanswered" in done.stdout
    sent = [json.loads(line) for line in (traces.folder / "sent.jsonl").read_text().splitlines()]
    assert in_doubt(traces) == Decimal(sent[0]["most_usd"])
    assert paid(traces.raw()) < everything_billed(teacher) <= paid(traces.raw()) + in_doubt(traces)


def test_attempts_are_bounded(traces: TracesCli, teacher: Teacher) -> None:
    teacher.fault = lambda asked: Fault(500)
    done = traces.run("traces.limit=1", "traces.max_attempts=2")
    assert done.returncode == 1
    assert len(teacher.asked) == 2
    assert "500" in last_line(done)


def test_too_many_failures_in_a_row_end_the_command(
    traces: TracesCli, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_producer, "_FAILURES_IN_A_ROW", 3)
    teacher.fault = lambda asked: Fault(422, message="temperature is not supported")
    done = traces.run("traces.concurrency=1")
    assert done.returncode == 1
    assert "3 samples in a row failed" in last_line(done)
    assert "temperature is not supported" in last_line(done)
    assert len(teacher.asked) == 3


def test_a_long_retry_after_ends_the_command(traces: TracesCli, teacher: Teacher) -> None:
    teacher.fault = lambda asked: Fault(429, {"Retry-After": "86400"})
    done = traces.run()
    assert done.returncode == 1
    assert "86400 s" in last_line(done)


def test_an_answer_without_usage_is_charged_its_maximum(traces: TracesCli, teacher: Teacher) -> None:
    teacher.has_usage = False
    assert traces.run("traces.limit=2").returncode == 0
    assert paid(traces.raw()) == 0
    assert [record["usage"] for record in traces.done()] == [None, None]
    assert everything_billed(teacher) < in_doubt(traces)


def test_a_slow_answer_times_out(traces: TracesCli, teacher: Teacher) -> None:
    teacher.delay_s = 3
    done = traces.run("traces.limit=1", "traces.max_attempts=1", "traces.timeout_s=0.5")
    assert done.returncode == 1
    assert "no answer within 0.5 s" in last_line(done)


def test_an_answer_that_stalls_in_the_middle_times_out(traces: TracesCli, teacher: Teacher) -> None:
    """Although bytes keep coming. Its possible cost stays charged, the others are recorded, a second run asks again."""
    teacher.fault = lambda asked: Fault(STALL) if asked.number in (2, 3) else None
    done = traces.run("traces.limit=3", "traces.concurrency=1", "traces.max_attempts=2", "traces.timeout_s=1")
    assert len(teacher.asked) == 4  # one, the stalled one twice, and the third
    assert done.returncode == 1
    assert "1 of 3 samples are missing" in last_line(done)
    assert any("no answer within 1.0 s" in str(record) for record in traces.raw())
    assert len(traces.done()) == 2
    assert everything_billed(teacher) <= paid(traces.raw()) + in_doubt(traces)
    teacher.fault = lambda asked: None
    assert traces.run("traces.limit=3").returncode == 0
    assert len(traces.done()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(number: signal.Signals, traces: TracesCli, teacher: Teacher) -> None:
    teacher.delay_s = 0.3
    process = traces.start("traces.concurrency=2")
    wait_until(lambda: len(traces.raw()) >= 2, process)
    teacher.delay_s = 20  # the command must not wait for these
    wait_until(lambda: teacher.under_way == 2, process)
    start = time.monotonic()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert time.monotonic() - start < 15
    assert "interrupted" in out
    assert 2 <= len(traces.done()) < 10
    teacher.delay_s = 0
    assert traces.run().returncode == 0
    assert len(traces.done()) == 10


def test_other_settings_and_a_second_process_are_refused(traces: TracesCli, teacher: Teacher) -> None:
    teacher.delay_s = 0.5
    process = traces.start("traces.concurrency=1")
    wait_until(lambda: len(traces.raw()) >= 1, process)
    second = traces.run()
    assert second.returncode == 2
    assert "in use by another process" in last_line(second)
    process.kill()
    process.communicate()
    asked = len(teacher.asked)
    for override, key in (("traces.model=other", "traces.model"), ("prompt.system=Hi", "prompt.system")):
        refused = traces.run(override)
        assert refused.returncode == 2
        assert f"set {key} back" in last_line(refused)
    assert len(teacher.asked) == asked
