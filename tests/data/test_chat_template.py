"""Chat templates that refuse a role, ignore it, or are broken: exact text, or a UserError with their own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main
from grpo_gsm8k.data import chat_template
from grpo_gsm8k.data.prompts import Shot, encode_prompt, render
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tiny.tokenizer import build_tokenizer
from tests.data.test_prompts import prompt_config

TURNS = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "[{{ role }}]{{ m['content'] | trim }}{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
)
ALTERNATING = GEMMA.partition("{% endif %}")[2]  # no word about systems, only about alternation
IGNORING = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}[INST]{% if loop.last and s %}{{ s }} {% endif %}"
    "{{ m['content'] }}[/INST]{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
SHOTS = (Shot("1+1?", "#### 2"), Shot("2+2?", "#### 4"))


def tokenizer(template):
    made = build_tokenizer()
    made.chat_template = template
    return made


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(chat_template, "_REPORTED", set())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TURNS, "<system>Be brief.<user>3+3?<assistant>"),
        (GEMMA, "[user]Be brief.\n\n3+3?[model]"),
        (ALTERNATING, "[user]Be brief.\n\n3+3?[model]"),
        (IGNORING, "[user]Be brief.\n\n3+3?[assistant]"),
        (MISTRAL, "[INST]Be brief. 3+3?[/INST]"),
    ],
)
def test_the_system_text_is_never_lost(template, expected):
    prompt = prompt_config("chat", system="Be brief.")
    assert render(prompt, "3+3?", tokenizer(template)) == expected
    assert encode_prompt(prompt, "3+3?", tokenizer(template)).size == len(expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (GEMMA, "[user]Be brief.\n\n1+1?[model]#### 2[user]2+2?[model]#### 4[user]3+3?[model]"),
        (IGNORING, "[user]Be brief.\n\n1+1?[assistant]#### 2[user]2+2?[assistant]#### 4[user]3+3?[assistant]"),
        (MISTRAL, "[INST]1+1?[/INST]#### 2</s>[INST]2+2?[/INST]#### 4</s>[INST]Be brief. 3+3?[/INST]"),
    ],
)
def test_worked_examples(template, expected):
    assert render(prompt_config("chat", system="Be brief."), "3+3?", tokenizer(template), SHOTS) == expected


def test_without_a_system_text_nothing_is_added(capsys):
    assert render(prompt_config("chat", system=""), "3+3?", tokenizer(GEMMA)) == "[user]3+3?[model]"
    assert capsys.readouterr().out == ""


def test_folding_is_reported_once(capsys):
    for question in ("1?", "2?", "3?"):
        render(prompt_config("chat"), question, tokenizer(GEMMA))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: the system text is put into the first user turn (")
    assert "System role not supported" in line


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError: Unexpected end of template"),
        ("{{ raise_exception('No math, please.') }}", "TemplateError: No math, please."),
        ("{{ messages[0].content.nothing.at_all }}", "UndefinedError: 'str object' has no attribute 'nothing'"),
        ("{{ messages[0]['content'] + 1 }}", "TypeError: can only concatenate str"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
        ("constant", "leaves out the user message"),
        ("{% for m in messages %}{{ m['content'][:3] }}{% endfor %}", "leaves out the user message"),
        ({"tools": TURNS}, "ValueError: This model has multiple chat templates"),
    ],
)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_anything_else_is_refused_with_the_words_of_the_template(template, words, system):
    with pytest.raises(UserError, match="set prompt=base instead of prompt=chat") as caught:
        render(prompt_config("chat", system=system), "3+3?", tokenizer(template))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_that_drops_worked_examples_is_refused():
    last = "{{ messages[0]['content'] }}{{ messages[-1]['content'] }}"
    with pytest.raises(UserError, match="leaves out the assistant message"):
        render(prompt_config("chat", system=""), "3+3?", tokenizer(last), SHOTS)


def test_the_command_line_ends_with_the_words_of_the_template(tmp_path: Path, random_model: Path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in random_model.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text("{{ raise_exception('No math, please.') }}")
    arguments = ["command=preprocess", "preset=cpu_demo", "prompt=chat", f"model.path={folder}", "data.train_size=20",
                 "data.test_size=2", "data.val_size=2", f"artifacts={tmp_path / 'artifacts'}"]  # fmt: skip
    assert main(arguments) == 2
    assert "No math, please.; set prompt=base" in capsys.readouterr().err.splitlines()[-1]
