"""Gold numbers: each is read exactly in the notation of the data, or its line is refused."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path

import pytest

from grpo_gsm8k.data.gold import Notation, check_stored, gold_of
from grpo_gsm8k.data.prepare import ensure, load_split, prepare_data
from grpo_gsm8k.data.problems import RowRules, json_objects, read_prepared, read_problems, write_prepared
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind, Locale, grade
from grpo_gsm8k.grading.problem import Problem

EN, TR = Notation(Locale.EN, given=False), Notation(Locale.TR, given=False)
EN_GIVEN, TR_GIVEN = Notation(Locale.EN, given=True), Notation(Locale.TR, given=True)


@pytest.mark.parametrize(
    ("answer", "notation", "gold"),
    [
        ("#### 13.200", TR, "13200"),
        ("#### 13.200,50 TL", TR, "13200.5"),
        ("#### 13,2", TR, "13.2"),
        ("#### 1,080", EN, "1080"),
        ("#### 850,000", EN, "850000"),
        ("#### 13.2", EN, "13.2"),
        ("#### 0.125", EN, "0.125"),
        ("#### 1,234.567", EN, "1234.567"),
        ("#### 13.200", EN_GIVEN, "13.2"),
        ("#### 1,080", TR_GIVEN, "1.08"),
        ("#### 1 1/2", EN, "1.5"),
    ],
)
def test_answers(answer, notation, gold):
    assert gold_of({}, answer, notation, AnswerKind.NUMBER) == gold


@pytest.mark.parametrize(
    ("row", "answer", "notation", "gold"),
    [
        ({"gold": 13.2}, "x", TR, "13.2"),
        ({"gold": 13200}, "#### 13.200", TR, "13200"),
        ({"gold": "13200"}, "#### 13.200", TR, "13200"),
        ({"gold": "13.200"}, "#### 13.200", TR, "13200"),
        ({"gold": "13.2"}, "#### 13,2", TR, "13.2"),  # a prepared file as a source
        ({"gold": "13,2"}, "#### 13,2", TR, "13.2"),
        ({"gold": "13.200"}, "#### 13.200", EN_GIVEN, "13.2"),
        ({"gold": "$1,080"}, "x", EN, "1080"),
        ({"gold": 5000000}, "#### 5 million", EN, "5000000"),
        ({"gold": 10**30}, "x", EN, "1" + "0" * 30),
    ],
)
def test_rows(row, answer, notation, gold):
    assert gold_of(row, answer, notation, AnswerKind.NUMBER) == gold


@pytest.mark.parametrize(
    ("row", "answer", "notation", "reason"),
    [
        ({}, "#### 13.200", EN, "13.2 in notation en and 13200 in tr: set data.locale=en or data.locale=tr"),
        ({}, "#### 1,080", TR, "1.08 in notation tr and 1080 in en"),
        ({}, "#### 1,8", EN, "but one in tr: set data.locale=tr"),
        ({}, "#### 1.8", TR, "but one in en: set data.locale=en"),
        ({}, "#### 5 million", EN, "is not one number"),
        ({}, "#### 5 bin", TR, "is not one number"),
        ({"gold": "13.200"}, "x", EN, "set data.locale"),
        ({"gold": "13.200"}, "x", TR, "write it as a JSON number"),
        ({"gold": "13.200"}, "x", TR_GIVEN, "write it as a JSON number"),
        ({"gold": "13.200"}, "#### 13.200", EN, "set data.locale"),
        ({"gold": 7}, "#### 8", EN, "gold '7' contradicts the answer, which ends in '#### 8'"),
        ({"gold": "13200"}, "#### 13.200", EN, "contradicts the answer, which ends in '#### 13.2'"),
        ({"gold": "1/3"}, "x", EN, "no decimal form"),
        ({"gold": "1/3"}, "#### 1/3", EN, "no decimal form"),
        ({"gold": "9" * 41}, "x", EN, "is not one number"),
        ({"gold": 1e300}, "x", EN, "is not one number"),
        ({"gold": float("nan")}, "x", EN, "is not one number"),
        ({"gold": True}, "x", EN, "is not a number"),
        ({"gold": None}, "#### 1", EN, "is not a number"),
        ({"gold": [1]}, "#### 1", EN, "is not a number"),
    ],
)
def test_refused(row, answer, notation, reason):
    with pytest.raises(ValueError, match=r"gold|####") as caught:
        gold_of(row, answer, notation, AnswerKind.NUMBER)
    assert reason in str(caught.value)


def numbers() -> list[Decimal]:
    rng = random.Random(0)
    made = [Decimal(rng.randrange(-(10**9), 10**9)).scaleb(-rng.randrange(0, 7)) for _ in range(300)]
    return [*made, Decimal("1e-39"), Decimal("9" * 40), Decimal(0), Decimal("-0.0")]


@pytest.mark.parametrize("notation", [EN_GIVEN, TR_GIVEN])
def test_whatever_is_accepted_is_stored_and_read_back(tmp_path: Path, notation: Notation) -> None:
    texts = [f"{number:,f}" for number in numbers()] + ["1/3", "1/8", "-2 1/4", "50%", "$5", "5 million", "1e5", "٤"]
    swap = str.maketrans(",.", ".,") if notation.locale is Locale.TR else {}
    problems = []
    for index, text in enumerate(texts):
        try:
            gold = gold_of({}, f"#### {text.translate(swap)}", notation, AnswerKind.NUMBER)
        except ValueError:
            continue
        check_stored(gold)
        problems.append(Problem(str(index), "?", f"#### {text.translate(swap)}", gold))
        assert grade(f"#### {text.translate(swap)}", gold, AnswerFormat.HASH, notation.locale).correct
    assert len(problems) == 304 + 4
    write_prepared(tmp_path / "a.jsonl", problems)
    assert read_prepared(tmp_path / "a.jsonl") == problems
    assert read_problems(tmp_path / "a.jsonl", "x", RowRules(notation)) == problems
    assert [Decimal(p.gold) for p in problems[:304]] == numbers()


@pytest.mark.parametrize("gold", ["1/3", "1.50", "1,080", "", "nan", "1e5", "+1", "-0", "9" * 41, " 1"])
def test_what_cannot_be_graded_is_not_stored(gold: str) -> None:
    with pytest.raises(ValueError, match=r"gold .* is not a canonical number"):
        check_stored(gold)


@pytest.fixture
def turkish(tmp_path, rows, data_config):
    train = [{"question": f"{i}?", "answer": f"#### {i}.200"} for i in range(1, 6)]
    return data_config(
        train_path=rows(tmp_path / "train.jsonl", train),
        test_path=rows(tmp_path / "test.jsonl", [{"question": "?", "answer": "#### 13.200"}]),
    )


def test_the_notation_of_the_data_is_that_of_the_prompt_or_its_own(turkish, tmp_path):
    folder = ensure(turkish, tmp_path / "a", Locale.TR)
    (problem,) = load_split(folder, "test")
    assert problem.gold == "13200"
    assert grade("#### 13.200", problem.gold, AnswerFormat.HASH, Locale.TR).correct
    with pytest.raises(UserError, match=r"train\.jsonl:1: '1\.200' after '####' is 1\.2 in notation en and 1200 in tr"):
        ensure(turkish, tmp_path / "b", Locale.EN)
    english = turkish.model_copy(update={"locale": Locale.EN})
    (problem,) = load_split(ensure(english, tmp_path / "b", Locale.TR), "test")
    assert problem.gold == "13.2"


def test_another_notation_is_noticed(turkish, tmp_path):
    ensure(turkish, tmp_path, Locale.TR)
    with pytest.raises(UserError, match=r"prepared with data\.locale=tr, now data\.locale=en"):
        ensure(turkish, tmp_path, Locale.EN)


def test_a_folder_from_before_the_key_was_english(tmp_path, rows, data_config):
    problems = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(6)]
    config = data_config(
        train_path=rows(tmp_path / "train.jsonl", problems[1:]), test_path=rows(tmp_path / "test.jsonl", problems[:1])
    )
    manifest = prepare_data(config, tmp_path).path / "manifest.json"
    values = json.loads(manifest.read_text())
    del values["config"]["locale"]
    manifest.write_text(json.dumps(values))
    ensure(config, tmp_path, Locale.EN)
    with pytest.raises(UserError, match=r"data\.locale=en, now data\.locale=tr"):
        ensure(config, tmp_path, Locale.TR)


def test_generators_and_gsm8k_are_english(data_config, tmp_path):
    config = data_config(
        source="reasoning_gym", name="chain_sum", train_size=5, test_size=1, train_path=None, test_path=None
    )
    ensure(config, tmp_path, Locale.TR)
    ensure(config, tmp_path, Locale.EN)


def test_byte_order_marks_are_ignored(tmp_path):
    line = json.dumps({"id": "a", "question": "?", "answer": "#### 2", "prompt": "?"}).encode()
    other = line.replace(b'"a"', b'"b"')
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\xef\xbb\xbf" + other + b"\n\xef\xbb\xbf")
    assert [problem.id for problem in read_problems(path, "x")] == ["a", "b"]
    assert [number for number, _ in json_objects(path)] == [1, 2]
    path.write_bytes(line.decode().encode("utf-16"))
    with pytest.raises(UserError, match="not UTF-8; save the file as UTF-8"):
        read_problems(path, "x")


def test_a_named_gold_column_has_the_notation_of_the_data(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('cevap,question\n1.280,a\n"0,5",b\n1.284,c\n7,d\n')
    rules = RowRules(TR_GIVEN, columns={"gold": "cevap"})
    assert [problem.gold for problem in read_problems(path, "x", rules)] == ["1280", "0.5", "1284", "7"]
    path.write_text("gold,question\n1.280,a\n")
    with pytest.raises(UserError, match=r"a\.csv:2: gold '1\.280' is 1280 or 1\.28: set both data\.locale"):
        read_problems(path, "x", RowRules(TR_GIVEN))
    assert read_problems(path, "x", RowRules(TR_GIVEN, columns={"gold": "gold"}))[0].gold == "1280"


@pytest.mark.parametrize(
    ("value", "stored"), [(1e16, "1" + "0" * 16), (Decimal("1234567890123456.789"), "1234567890123456.789")]
)
def test_json_numbers_are_exact(value, stored):
    assert gold_of({"gold": value}, "x", TR, AnswerKind.NUMBER) == stored


def test_huge_numbers_are_refused():
    with pytest.raises(ValueError, match="is not one number"):
        gold_of({"gold": Decimal("1e400")}, "x", EN, AnswerKind.NUMBER)
