"""Messages about keys and values, and texts that look like numbers."""

from __future__ import annotations

import pytest

from cli import CONF, load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.config_keys import dotted_keys, keep_texts, unknown_key
from grpo_gsm8k.errors import UserError

KEYS = dotted_keys(Config)
DATA = ["command=data", "preset=cpu_demo"]


def test_every_key_of_the_configuration_is_known() -> None:
    dumped = load_config(DATA).model_dump(by_alias=True)

    def flat(values: dict[str, object], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in values.items():
            key = f"{prefix}{name}"
            found |= flat(value, f"{key}.") if isinstance(value, dict) and key not in KEYS else {key}
        return found

    assert flat(dumped) == set(KEYS)


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_typo_in_any_key_leads_to_it(key: str) -> None:
    typo = f"{key[:-1]}{key[-1] * 3}"
    message = unknown_key(typo, KEYS)
    assert f"did you mean {key}?" in message


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("leaner.lr=1", "leaner.lr: unknown key; did you mean learner.lr?"),
        ("lr=1", "lr: unknown key; did you mean learner.lr? (or sft.lr, policy_gradient.critic.lr)"),
        ("learner.lrr=1", "did you mean learner.lr?"),
        ("learner.learning_rate=1", "did you mean learner.lr?"),
        ("policy_gradient.lr=1", "did you mean learner.lr?"),
        ("++learner.lrr=1", "learner.lrr: unknown key; did you mean learner.lr?"),
        ("+policy_gradient.grup_size=3", "policy_gradient.grup_size: unknown key; did you mean policy_gradient.group_"),
        ("~learner.lrr", "learner.lrr"),
        ("presett=cpu_demo", "did you mean preset?"),
        ("zzzqqq=1", "zzzqqq: unknown key; look up the name in docs/configuration.md"),
        ("data.params.top=3", "a new entry of a map needs a plus sign: +data.params.top=VALUE"),
        ("policy_gradient=grop", "did you mean policy_gradient=grpo? options: cispo, clip_cov, dapo,"),
        ("learner=loraa", "learner=loraa does not exist: did you mean learner=lora? options: default, lora, qlora"),
        ("learner=3", "learner=3 does not exist: options: default, lora, qlora"),
        ("data=zzz", "options: asdiv, chain_sum, dapo_math_17k, gsm8k, gsm8k_socratic, gsm_symbolic, jsonl"),
        ("model.path=a=b", """quote it: 'model.path="a=b"'"""),
        ("model.path=a,b", """quote it: 'model.path="a,b"' or, for a list, 'model.path=[a,b]'"""),
        ("model.path={a", """quote it: 'model.path="{a"'"""),
        ("prompt.text='x", """quote it: 'prompt.text="x"'"""),
        ("prompt.text=(a", """quote it: 'prompt.text="(a"'"""),
        ("report.title=50% (x", """quote it: 'report.title="50% (x"'"""),
        ("policy_gradient", "policy_gradient: not of the form key=value, such as command=data"),
        ("artifacts=", "artifacts is empty: set artifacts=FOLDER"),
        ("name=${nothing}", "nothing"),
    ],
)  # fmt: skip
def test_messages(argument: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([*DATA, argument])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", sorted(path.name for path in CONF.iterdir() if path.is_dir()))
def test_every_group_lists_its_options(group: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([*DATA, f"{group}=no_such_option"])
    for path in (CONF / group).glob("*.yaml"):
        assert path.stem in str(caught.value)


@pytest.mark.parametrize("text", ["42", "007", "1e3", "1_000", "0.50", "true", "False", "nan", "20251125"])
def test_texts_that_look_like_numbers_stay_texts(text: str) -> None:
    config = load_config([*DATA, f"name={text}", f"model.path={text}", f"artifacts={text}", f"model.revision={text}"])
    assert (config.name, config.model.path, str(config.artifacts), config.model.revision) == (text,) * 4


def test_other_values_are_left_alone() -> None:
    given = ["learner.lr=1e-3", "model.revision=null", 'name="42"', "report.runs=[1,2]", "eval.limit=3", "seed=1", "x"]
    assert keep_texts(given, KEYS, ["learner"]) == given
    assert load_config([*DATA, "model.revision=null", 'name="42"']).name == "42"
