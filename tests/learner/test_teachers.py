"""Teachers in the learner's process and on a server: the same numbers, and refusals in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from grpo_gsm8k.config import TeacherConfig
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.learner import served_teacher
from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.learner.experience import experience_metrics, prepare
from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.served_teacher import ServedTeacher
from grpo_gsm8k.learner.setup import open_models
from grpo_gsm8k.learner.teacher_vocabulary import check_rows, check_vocabulary
from grpo_gsm8k.models import EMBEDDED_TINY
from tests.learner.conftest import random_groups, random_rewards, small_config
from tests.learner.scoring_server import MODEL, Scorer, serving

DISTILL = ("policy_gradient=distill", "policy_gradient.teacher.task_weight=0.5")


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with serving(Scorer(EMBEDDED_TINY)) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "scorer" in request.fixturenames:
        server = request.getfixturevalue("scorer")
        server.fault = lambda number: None
        server.asked.clear()
        server.keys.clear()


def served(scorer: Scorer, **changes: Any) -> ServedTeacher:
    values = {"base_url": scorer.url, "model": MODEL, **changes}
    return ServedTeacher(TeacherConfig(**values), first_wait_s=0.001)


def prompts() -> tuple[Any, list[np.ndarray]]:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    return tokenizer, [np.array(tokenizer.encode(text), dtype=np.int32) for text in ("1 + 2 = ?", "What is 7 - 5?\n")]


def masked(samples: list[Sample]) -> list[Sample]:
    """About a third of the tokens are a tool's output."""
    rng = np.random.default_rng(3)
    return [replace(s, mask=(rng.random(len(s.mask)) > 0.33) | (np.arange(len(s.mask)) == 0)) for s in samples]


def test_a_server_gives_the_numbers_of_the_same_model_in_the_process(random_model: Path, scorer: Scorer) -> None:
    """Advantages, metrics and the token mask, with an untrained student and the embedded model as the teacher."""
    groups = [masked(group) for group in random_groups(3, 4)]
    server = (f"policy_gradient.teacher.base_url={scorer.url}", f"policy_gradient.teacher.model={MODEL}")
    here, there = small_config(*DISTILL, "policy_gradient.group_size=4"), small_config(*DISTILL, *server)
    models = open_models(here, random_model, random_model, None, EMBEDDED_TINY)
    local = prepare(groups, random_rewards(3, 4), models, here, 0.0, lambda: None)
    remote_models = Models(models.policy, None, None)
    beats: list[int] = []
    remote = prepare(groups, random_rewards(3, 4), remote_models, there, 0.0, lambda: beats.append(1))
    tokens, others = ([s for group in found.groups for s in group] for found in (local, remote))
    for one, other in zip(tokens, others, strict=True):
        assert other.advantages == pytest.approx(one.advantages, abs=2e-5)
        assert not other.advantages[~other.mask].any()
        assert not other.teacher_logprobs[~other.mask].any()
    assert len(beats) == len(scorer.asked) == 12
    found = experience_metrics(local, here), experience_metrics(remote, there)
    assert found[0]["distill/reverse_kl"] == pytest.approx(found[1]["distill/reverse_kl"], abs=1e-5)
    log_ratios = np.concatenate([(s.proximal_logprobs - s.teacher_logprobs)[s.mask] for s in tokens])
    assert found[0]["distill/reverse_kl"] == pytest.approx(log_ratios.mean(), rel=1e-5)
    assert all(values["time/teacher_s"] > 0 for values in found)


def test_a_server_is_checked_at_the_start(scorer: Scorer) -> None:
    tokenizer, ids = prompts()
    served(scorer).check(tokenizer, ids)
    assert [type(body["prompt"]) for body in scorer.asked] == [str, list] * 2
    assert all(body["prompt_logprobs"] == 0 and body["max_tokens"] == 1 for body in scorer.asked)


def test_the_key_is_sent(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, ids = prompts()
    with pytest.raises(UserError, match="the environment variable NO_SUCH_KEY is not set"):
        served(scorer, api_key_env="NO_SUCH_KEY").check(tokenizer, ids)
    monkeypatch.setenv("TEACHER_KEY", "secret")
    served(scorer, api_key_env="TEACHER_KEY").check(tokenizer, ids)
    assert scorer.keys == {"Bearer secret"}


def table(token: int, value: object) -> dict[str, Any]:
    return {str(token): {"logprob": value}}


ONE = {"choices": [{"prompt_logprobs": [None, table(1, -1.0)]}]}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, {"choices": [{"text": "3"}]}), "returns no prompt_logprobs"),
        ((200, {"choices": []}), "returns no prompt_logprobs"),
        ((200, b"<html>"), "did not answer with JSON"),
        ((200, ONE), "divides texts into other tokens than the start model"),
        ((404, {"error": "unknown model"}), "refused the request with status 404"),
        ((401, {"error": "no key"}), "refused the request with status 401"),
    ],
)
def test_a_server_that_cannot_teach_is_refused(scorer: Scorer, answer: tuple[int, Any], words: str) -> None:
    tokenizer, ids = prompts()
    scorer.fault = lambda number: answer
    with pytest.raises(UserError, match="policy_gradient.teacher.base_url: .*" + words) as caught:
        served(scorer).check(tokenizer, ids)
    assert "\n" not in str(caught.value)


def test_token_ids_that_it_reads_otherwise_are_refused(scorer: Scorer) -> None:
    tokenizer, ids = prompts()
    token = int(ids[0][1])
    right = scorer.tables(ids[0].tolist())
    for tables, words in (
        (right[:-1], f"returned {len(right) - 1} prompt log-probabilities for {len(right)} tokens"),
        ([None, table(token + 1, -1.0), *right[2:]], f"returned no log-probability for token {token}"),
        ([None, table(token, None), *right[2:]], f"returned no log-probability for token {token}"),
        ([None, table(token, 8.5), *right[2:]], "a log-probability above 0"),
    ):
        answer = {"choices": [{"prompt_logprobs": tables}]}
        scorer.asked.clear()
        scorer.fault = lambda number, answer=answer: None if number == 1 else (200, answer)
        with pytest.raises(UserError, match=words):
            served(scorer).check(tokenizer, ids)


def test_a_busy_server_is_asked_again(scorer: Scorer) -> None:
    tokenizer, ids = prompts()
    scorer.fault = lambda number: (503, "loading") if number < served_teacher.ATTEMPTS else None
    served(scorer).check(tokenizer, ids)
    assert len(scorer.asked) == served_teacher.ATTEMPTS + 3


def test_a_server_that_stays_away_ends_the_run(scorer: Scorer) -> None:
    """Whether it says so or is gone; the run can be resumed."""
    (sample,) = random_groups(1, 1)[0]
    scorer.fault = lambda number: (500, "out of memory")
    with pytest.raises(LabError, match=r"failed 6 times in a row.*500: .*out of memory.*then resume the run"):
        list(served(scorer).scores({0: sample}))
    with pytest.raises(LabError, match="Connection refused"):
        list(served(scorer, base_url="http://127.0.0.1:9/v1").scores({0: sample}))


def test_numbers_that_are_not_finite_end_the_run(random_model: Path, scorer: Scorer) -> None:
    """JSON of Python's has them."""
    server = (f"policy_gradient.teacher.base_url={scorer.url}", f"policy_gradient.teacher.model={MODEL}")
    config = small_config(*DISTILL, *server)
    models = Models(load_policy(random_model, config.learner), None, None)
    groups = random_groups(2, 1)[:1]
    ids = [*groups[0][0].prompt_ids.tolist(), *groups[0][0].completion_ids.tolist()]
    tables = [None, *(table(token, float("-inf")) for token in ids[1:])]
    scorer.fault = lambda number: (200, {"choices": [{"prompt_logprobs": tables}]})
    with pytest.raises(LabError, match="not finite"):
        prepare(groups, random_rewards(2, 1)[:1], models, config, 0.0, lambda: None)


def test_the_vocabulary_of_a_teacher(random_model: Path, tmp_path: Path) -> None:
    tokenizer, ids = prompts()
    check_vocabulary(random_model, EMBEDDED_TINY, tokenizer, ids)
    shutil.copytree(random_model, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"policy_gradient.teacher.path: .* has another vocabulary: '1' is token"):
        check_vocabulary(tmp_path / "other", EMBEDDED_TINY, tokenizer, ids)
    file.unlink()
    file.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        check_vocabulary(tmp_path / "other", EMBEDDED_TINY, tokenizer, ids)


def test_a_teacher_needs_a_logit_for_every_token_of_the_student() -> None:
    check_rows(152_064, 151_936, "teacher")
    check_rows(None, 151_936, "teacher")
    with pytest.raises(UserError, match="teacher has 151936 logits, fewer than the 152064"):
        check_rows(151_936, 152_064, "teacher")
