from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from grpo_gsm8k.config import PromptConfig
from grpo_gsm8k.data.prompts import Shot, encode_prompt, render
from grpo_gsm8k.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf" / "prompt"
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def prompt_config(name: str, **changes: object) -> PromptConfig:
    return PromptConfig.model_validate(yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


def characters(template: str | None = None, around: str = "$A") -> PreTrainedTokenizerFast:
    """A real fast tokenizer of single characters; `around` selects the special tokens that it adds."""
    alphabet = [chr(code) for code in range(9, 127)]
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = template
    return fast


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_prompt_config_renders(name):
    assert "How many?" in render(prompt_config(name), "How many?", characters(TEMPLATE))


def test_base_is_plain_text():
    assert render(prompt_config("base"), "1+1?", characters()) == "Question: 1+1?\nAnswer:"


def test_braces_of_question_and_template_are_left_alone():
    prompt = prompt_config("base", text="{json} {{x}} {question} {question}")
    assert render(prompt, "{0} {question}", characters()) == "{json} {{x}} {0} {question} {0} {question}"


def test_chat_has_a_system_and_a_user_turn_and_opens_the_answer():
    text = render(prompt_config("chat", system="Be brief."), "1+1?", characters(TEMPLATE))
    assert text == "<s>system:Be brief.</s><s>user:1+1?</s><s>assistant:"
    text = render(prompt_config("chat", system=""), "1+1?", characters(TEMPLATE))
    assert text == "<s>user:1+1?</s><s>assistant:"


def test_chat_without_a_template_names_the_fix():
    with pytest.raises(UserError, match=r"prompt=chat needs a chat template.*prompt=base"):
        encode_prompt(prompt_config("chat"), "1+1?", characters())


def test_chat_ids_get_no_second_start_token():
    tokenizer = characters(TEMPLATE, around="<s> $A </s>")
    ids = encode_prompt(prompt_config("chat", system=""), "1?", tokenizer)
    assert tokenizer.decode(ids).replace(" ", "") == "<s>user:1?</s><s>assistant:"
    assert list(ids).count(tokenizer.bos_token_id) == 2


@pytest.mark.parametrize(
    ("around", "text", "starts"),
    [
        ("$A", "{question}", 0),
        ("<s> $A", "{question}", 1),
        ("<s> $A </s>", "{question}", 1),
        ("$A </s>", "{question}", 0),
        ("<s> $A", "<s>{question}", 1),
    ],
)
def test_base_ids_start_once_and_never_end(around, text, starts):
    tokenizer = characters(around=around)
    ids = encode_prompt(prompt_config("base", text=text), "12", tokenizer)
    assert ids.dtype == np.int32
    assert list(ids) == [tokenizer.bos_token_id] * starts + tokenizer.convert_tokens_to_ids(["1", "2"])


def test_the_instruction_comes_first():
    plain = prompt_config("base", instruction="Do it.")
    assert render(plain, "1+1?", characters(), [Shot("0?", "0")]) == (
        "Do it.\n\nQuestion: 0?\nAnswer: 0\n\nQuestion: 1+1?\nAnswer:"
    )
    chat = prompt_config("chat", system="Be brief.", instruction="Do it.")
    assert render(chat, "1+1?", characters(TEMPLATE), [Shot("0?", "0")]) == (
        "<s>system:Be brief.</s><s>user:Do it.\n\n0?</s><s>assistant:0</s><s>user:1+1?</s><s>assistant:"
    )
