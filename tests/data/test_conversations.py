"""Conversations: the loss covers the assistant's turns and their end tokens, exactly, or the row is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from grpo_gsm8k.config import Config
from grpo_gsm8k.data import tokens
from grpo_gsm8k.data.preprocess import END_INSIDE, EQUAL, NOT_WRITABLE, TOO_LONG, encode_example, unreadable
from grpo_gsm8k.data.responses import read_texts
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.batching import pack_tokens
from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.sft_session import as_sequences
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.tiny.tokenizer import build_tokenizer
from tests.conftest import Cli, read_jsonl
from tests.data.test_preprocess import config_of, tokenizer
from tests.learner.test_sft_update import gradients

TURNS = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<eos>{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TRIMMING = TURNS.replace("{{ m['content'] }}", "{{ m['content'] | trim }}")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system.') }}{% endif %}" + TURNS
# As in Qwen3: only the last answer keeps its reasoning.
THINKING = TURNS.replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}{% else %}"
    "{{ m['content'] }}{% endif %}",
)
EMPTY_THOUGHT = TURNS.replace(
    "{{ m['content'] }}", "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] }}"
)
# The number of turns is written into the beginning, so that it changes when turns follow.
COUNTING = "{{ messages | length }}" + TURNS
ENDLESS = TURNS.replace("<eos>", "")
ROW = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "1+1=2\n#### 2"},
    {"role": "user", "content": "And 2+2?"},
    {"role": "assistant", "content": "#### 4"},
]


def chat(*overrides: str) -> Config:
    return config_of("prompt=chat", *overrides)


def tiny(template: str) -> Any:
    made = build_tokenizer()
    made.chat_template = template
    return made


def rows(tmp_path: Path, *values: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def encoded(tmp_path: Path, row: object, tokens_of: Any, *overrides: str) -> tokens.Example | str:
    (text,) = read_texts(rows(tmp_path, row))
    return encode_example(chat(*overrides), text, tokens_of)


def labels(example: tokens.Example | str) -> list[int]:
    assert isinstance(example, tokens.Example), example
    found: list[int] = pack_tokens(as_sequences(example), torch.device("cpu")).targets_N.tolist()
    assert example.trained_tokens == len(found)
    return found


def test_labels_of_a_real_template_decode_to_the_turns_and_their_ends(tmp_path: Path) -> None:
    smollm2 = tokenizer("smollm2")
    example = encoded(tmp_path, {"messages": ROW}, smollm2)
    assert smollm2.decode(labels(example)) == "1+1=2\n#### 2<|im_end|>#### 4<|im_end|>"
    assert isinstance(example, tokens.Example)
    whole = smollm2.apply_chat_template(ROW, tokenize=False).removesuffix("\n")
    ids = [*example.prompt_ids.tolist(), *example.response_ids.tolist()]
    assert smollm2.decode(ids) == whole
    assert ids == smollm2.encode(whole, add_special_tokens=False)  # no merge across a border in an ordinary row


def test_the_prompt_is_what_an_engine_is_given(tmp_path: Path) -> None:
    """A token that a joint tokenization would make of the border and the answer is not made."""
    smollm2 = tokenizer("smollm2")
    row = [ROW[1], {"role": "assistant", "content": "\n2"}]
    example = encoded(tmp_path, {"messages": row}, smollm2)
    asked = smollm2.apply_chat_template(row[:1], tokenize=False, add_generation_prompt=True)
    assert isinstance(example, tokens.Example)
    assert example.prompt_ids.tolist() == smollm2.encode(asked, add_special_tokens=False)
    assert smollm2.decode(labels(example)) == "\n2<|im_end|>"
    joint = smollm2.encode(asked + "\n2<|im_end|>", add_special_tokens=False)
    assert [*example.prompt_ids.tolist(), *example.response_ids.tolist()] != joint


def test_one_turn_is_the_same_as_a_prompt_with_its_response(tmp_path: Path) -> None:
    config = chat()
    system = {"role": "system", "content": config.prompt.system}
    answered = {"messages": [system, ROW[1], ROW[4]]}
    pair, turns = read_texts(rows(tmp_path, {"prompt": "1+1?", "response": "#### 4"}, answered))
    one, other = (encode_example(config, row, tokenizer("smollm2")) for row in (pair, turns))
    assert isinstance(one, tokens.Example)
    assert isinstance(other, tokens.Example)
    assert other.prompt_ids.tolist() == one.prompt_ids.tolist()
    assert other.response_ids.tolist() == one.response_ids.tolist()
    assert other.mask is None


@pytest.mark.parametrize("template", [TURNS, TRIMMING, NO_SYSTEM], ids=["turns", "trimming", "no system"])
def test_loss_and_gradients_are_those_of_hugging_face_with_masked_labels(
    tmp_path: Path, random_model: Path, template: str
) -> None:
    made = tiny(template)
    more = [{"role": "user", "content": "7?"}, {"role": "assistant", "content": "Yes."}]
    examples = [encoded(tmp_path, {"messages": row}, made) for row in (ROW, more)] + [
        encoded(tmp_path, {"text": "One, two."}, made)
    ]
    usable = [example for example in examples if isinstance(example, tokens.Example)]
    assert len(usable) == 3
    config = chat().learner
    ours, found = gradients(load_policy(random_model, config), usable, 10_000)

    system = "Be brief.\n\n1+1?" if template == NO_SYSTEM else "Be brief."
    first = f"[user]{system}\n" if template == NO_SYSTEM else f"[system]{system}\n[user]1+1?\n"
    hand_made = [
        [(first + "[assistant]", False), ("1+1=2\n#### 2<eos>", True), ("\n[user]And 2+2?\n[assistant]", False),
         ("#### 4<eos>", True)],
        [("[user]7?\n[assistant]", False), ("Yes.<eos>", True)],
        [("One, two.<eos>", True)],
    ]  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)
    total = torch.zeros(())
    count = 0
    for parts in hand_made:
        ids = [(i, trained) for text, trained in parts for i in made.encode(text, add_special_tokens=False)]
        target = torch.tensor([[i if trained else -100 for i, trained in ids]])
        predicted = int((target[:, 1:] != -100).sum())  # Hugging Face shifts, so that the first token has no loss
        loss = model(torch.tensor([[i for i, _ in ids]]), labels=target).loss
        total = total + loss * predicted
        count += predicted
    (total / count).backward()
    assert ours.tokens == count
    assert ours.loss_sum / ours.tokens == pytest.approx(float(total.detach()) / count, rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in found and parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_trimmed_turns_are_trained_on_as_the_template_writes_them(tmp_path: Path) -> None:
    made = tiny(TRIMMING)
    row = {"messages": [ROW[1], {"role": "assistant", "content": " 2 \n"}]}
    assert made.decode(labels(encoded(tmp_path, row, made))) == "2<eos>"
    assert tiny(TURNS).decode(labels(encoded(tmp_path, row, tiny(TURNS)))) == " 2 \n<eos>"


def test_reasoning_that_the_template_keeps_is_trained_on(tmp_path: Path) -> None:
    row = [*ROW[:4], {"role": "assistant", "content": "<think>4.</think>#### 4"}]
    assert tiny(THINKING).decode(labels(encoded(tmp_path, {"messages": row}, tiny(THINKING)))) == (
        "1+1=2\n#### 2<eos><think>4.</think>#### 4<eos>"
    )


THOUGHT = {"role": "assistant", "content": "<think>Hm.</think>2"}


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (
            THINKING,
            [ROW[1], THOUGHT, *ROW[3:]],
            "leaves out the assistant",
        ),
        (EMPTY_THOUGHT, ROW, r"changes the text of messages\[4\]"),
        (COUNTING, ROW, r"renders the turns before messages\[2\] differently"),
        (ENDLESS, ROW, "without a special token"),
        (None, ROW, "chat template"),
    ],
    ids=["stripped reasoning", "added reasoning", "counting", "endless", "none"],
)
def test_templates_that_cannot_be_followed_exactly_are_refused(
    tmp_path: Path, template: str, row: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        encoded(tmp_path, {"messages": row}, tiny(template))
    assert "rows.jsonl:1: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_messages_without_a_chat_prompt_are_refused(tmp_path: Path) -> None:
    (row,) = read_texts(rows(tmp_path, {"messages": ROW}))
    with pytest.raises(UserError, match="set prompt=chat"):
        encode_example(config_of("prompt=base"), row, tokenizer("smollm2"))


def test_what_is_left_out(tmp_path: Path) -> None:
    made = tiny(TURNS)
    end = {"messages": [ROW[1], {"role": "assistant", "content": "2<eos>3"}]}
    assert encoded(tmp_path, end, made) == END_INSIDE
    assert encoded(tmp_path, {"messages": [{"role": "user", "content": "5 €?"}, ROW[4]]}, made) == NOT_WRITABLE
    assert encoded(tmp_path, {"messages": ROW}, made, "preprocess.max_tokens=20") == TOO_LONG
    assert encoded(tmp_path, {"text": "5 €"}, made) == NOT_WRITABLE
    assert encoded(tmp_path, {"text": "a<eos>b"}, made) == END_INSIDE


def test_a_whole_text_is_trained_on_from_its_second_token(tmp_path: Path) -> None:
    made = build_tokenizer()
    example = encoded(tmp_path, {"text": "Two."}, made)
    assert isinstance(example, tokens.Example)
    assert made.decode(example.prompt_ids) == "T"
    assert made.decode(labels(example)) == "wo.<eos>"


def test_answers_are_looked_for_in_the_last_turn(tmp_path: Path) -> None:
    no_answer = [*ROW[:4], {"role": "assistant", "content": "Four."}]
    texts = read_texts(rows(tmp_path, {"messages": ROW}, {"messages": no_answer}, {"text": "Four."}))
    assert unreadable(chat(), texts) == 1


def test_shards_keep_the_mask_and_older_ones_have_none(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    examples = [encoded(tmp_path, row, tiny(TURNS)) for row in ({"messages": ROW}, {"text": "One."})]
    written = [example for example in examples if isinstance(example, tokens.Example)]
    tokens.write_shards(tmp_path, "train", written, 10)
    chat_row, text_row = tokens.read_shards(tmp_path, "train")
    assert written[0].mask is not None
    assert chat_row.mask is not None
    assert chat_row.mask.tolist() == written[0].mask.tolist()
    assert text_row.mask is None
    assert tokens.trained_lengths(tmp_path) == [len("1+1=2\n#### 2") + len("#### 4") + 2, 4]
    file = tmp_path / "train-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["mask"]), file)
    assert [example.mask for example in tokens.read_shards(tmp_path, "train")] == [None, None]


USER, ANSWER = ROW[1], ROW[4]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages is not a list of at least one"),
    ({"messages": "hello"}, "messages is not a list"),
    ({"messages": ["hello"]}, r"messages\[0\] is not an object"),
    ({"messages": [USER]}, "the last message is of the role user"),
    ({"messages": [*ROW, USER]}, "the last message is of the role user"),
    ({"messages": [USER, ANSWER, ANSWER]}, r"messages\[2\] is of the role assistant, expected user"),
    ({"messages": [ANSWER]}, r"messages\[0\] is of the role assistant, expected user"),
    ({"messages": [ROW[0]]}, "the last message is of the role system"),
    ({"messages": [USER, ROW[0], ANSWER]}, r"messages\[1\] is a system message, which must be the first"),
    ({"messages": [{"role": "human", "content": "?"}]}, r"messages\[0\]: role is 'human': give system, user or"),
    ({"messages": [{"content": "?"}]}, r"messages\[0\]: role is None"),
    ({"messages": [USER, {"role": "tool", "content": "4"}]}, r"messages\[1\]: tool calls are not supported"),
    ({"messages": [USER, ANSWER | {"tool_calls": [{"id": "x"}]}]}, r"messages\[1\]: tool calls are not supported"),
    ({"messages": [USER, ANSWER], "tools": [{"name": "x"}]}, "tools are not supported"),
    ({"messages": [USER, ANSWER | {"weight": 0}]}, r"messages\[1\]: weight is unknown"),
    ({"messages": [USER, ANSWER | {"reasoning_content": "Hm."}]}, "reasoning_content is unknown"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]}, "a list of parts: give one string"),
    ({"messages": [USER, ANSWER | {"content": " "}]}, r"messages\[1\]: content is missing, empty"),
    ({"messages": [USER, ANSWER | {"content": None}]}, r"messages\[1\]: content is missing, empty"),
    ({"messages": [USER, ANSWER], "text": "a"}, "messages and text in one row"),
    ({"messages": [USER, ANSWER], "response": "a"}, "messages and response in one row"),
    ({"prompt": "a", "text": "b"}, "prompt and text in one row"),
    ({"question": "a", "answer": "b"}, "columns question, answer: a row has prompt and response, or prompt, chosen"),
    ({"text": ""}, "text is missing, empty"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_texts(rows(tmp_path, {"text": "fine"}, row))
    assert "rows.jsonl:2: " in str(caught.value)


@pytest.mark.slow
def test_a_run_learns_a_conversation(cli: Cli, tmp_path: Path) -> None:
    """From the file to the loss, as a user: it falls on the assistant's turns."""
    model = tmp_path / "model"
    shutil.copytree(EMBEDDED_TINY, model)
    (model / "chat_template.jinja").write_text(TURNS)
    file = rows(tmp_path, *({"messages": ROW} for _ in range(4)), {"text": "One, two."})
    common = ("preset=cpu_demo", f"model.path={model}", "prompt=chat", "prompt.system=''",
              "data.train_size=40", "data.val_size=4",
              "data.test_size=4", "preprocess.source=jsonl", f"preprocess.path={file}")  # fmt: skip
    done = cli.run("command=preprocess", *common)
    assert done.returncode == 0, done.stderr
    assert "5 train and 4 validation examples" in done.stdout
    done = cli.run("command=sft", *common, "sft.epochs=12", "sft.min_tokens_per_update=1", "sft.lr=1e-3",
                   "sft.warmup_updates=1", "actor.engine=scripted", "wandb.mode=off")  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [r for r in read_jsonl(cli.runs()[-1] / "metrics.jsonl") if "step" in r]
    lengths = {float(str(step["train/response_tokens"])) for step in steps}
    assert lengths == {len("1+1=2\n#### 2") + len("#### 4") + 2, len("One, two.")}
    losses = [float(str(step["train/loss"])) for step in steps]
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_a_pair_of_conversations_is_compared_in_its_last_turn(tmp_path: Path) -> None:
    made = tiny(TURNS)
    wrong = {"role": "assistant", "content": "It is 5.\n#### 5"}
    forms = (
        {"chosen": ROW, "rejected": [*ROW[:4], wrong]},
        {"prompt": ROW[:4], "chosen": [ROW[4]], "rejected": [wrong]},
        {"prompt": "1+1?", "chosen": ROW, "rejected": [*ROW[:4], wrong]},
    )
    for form in forms:
        pair = encoded(tmp_path, form, made)
        assert isinstance(pair, tokens.Example)
        assert pair.rejected_ids is not None
        assert made.decode(pair.prompt_ids) == made.apply_chat_template(
            ROW[:4], tokenize=False, add_generation_prompt=True
        )
        texts = [made.decode(ids) for ids in (pair.response_ids, pair.rejected_ids)]
        assert texts == ["#### 4<eos>", "It is 5.\n#### 5<eos>"]
    assert encoded(tmp_path, {"chosen": ROW, "rejected": ROW}, made) == EQUAL
    (row,) = read_texts(rows(tmp_path, forms[0]))
    assert unreadable(chat(), [row]) == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": ROW, "rejected": "no"}, "rejected is not a list of at least one message"),
        ({"chosen": ROW}, "rejected is not a list of at least one message"),
        ({"chosen": ROW, "rejected": ROW[:3]}, "differ before their last message"),
        ({"chosen": ROW, "rejected": [*ROW[:3], ROW[3] | {"content": "?"}, ROW[4]]}, "differ before their last"),
        ({"chosen": ROW[:4], "rejected": ROW}, "prompt and chosen: messages|the last message is of the role user"),
        ({"prompt": "Else?", "chosen": ROW, "rejected": ROW}, "prompt is not the first question of chosen"),
    ],
)
def test_bad_pairs_of_conversations_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_texts(rows(tmp_path, {"text": "fine"}, row))
    assert "rows.jsonl:2: " in str(caught.value)
