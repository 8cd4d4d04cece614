"""Types of fields that several sections use, and the base class of all sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

RANDOM = re.compile(r"random:([1-9]\d*)")


def _item_limit(value: object) -> object:
    """Refuse everything else with one message instead of one per alternative."""
    first = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not first and not (isinstance(value, str) and RANDOM.fullmatch(value)):
        raise ValueError(f"{value}: give a number N for the first N, or random:N for N drawn by the seed")
    return value


MIN_TEMPERATURE = 0.01  # vLLM replaces lower temperatures above 0 by this one
Dtype = Literal["auto", "float32", "bfloat16"]  # never `auto` in a checked section, see `with_dtype`
AUTO_THREADS = 0  # `auto`, until the model and the machine are known; see preflight/threads.py


def _thread_count(value: object) -> object:
    """Turn `auto` into AUTO_THREADS. Raises ValueError in one line for other texts."""
    if value == "auto":
        return AUTO_THREADS
    if isinstance(value, str):
        raise ValueError(f"Input should be a number of threads, or auto, not {value}")
    return value


Threads = Annotated[int, Field(ge=0), BeforeValidator(_thread_count)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda:\d+)$")]
# The requests of an evaluation shift the seed by 40 bits, and engines take seeds of 63 bits.
Seed = Annotated[int, Field(ge=0, lt=2**23)]
Cores = list[Annotated[int, Field(ge=0)]]
Temperature = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
ItemLimit = Annotated[  # the first N items, or N drawn by the seed
    Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^random:[1-9]\d*$")],
    BeforeValidator(_item_limit),
]
Prompting = Literal["zero_shot", "zero_shot_bare", "one_shot", "one_shot_bare", "few_shot", "few_shot_bare"]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1), AfterValidator(lambda value: max(value, 0))]  # -1: off, as in vLLM
MinP = Annotated[float, Field(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=2)]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]  # cannot leave its parent folder


def _keep_last(value: object) -> object:
    """Raise ValueError in one line: a union of types would give one message for each of them."""
    if value != "all" and not (isinstance(value, int) and value >= 1):
        raise ValueError(f"Input should be an integer of at least 1, or all, not {value}")
    return value


KeepLast = Annotated[int | Literal["all"], BeforeValidator(_keep_last)]


def _stop_texts(value: object) -> object:
    """Refuse stop texts that would never end a completion, or every one."""
    texts = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f'Input should be a list of texts such as ["Question:"], not {value!r}')
    if escaped := [text for text in texts if _ESCAPED.search(str(text))]:
        raise ValueError(
            f"{escaped[0]!r} holds a backslash and a letter instead of a line break or tab: write $'...' in the shell, "
            "or set it in a YAML file"
        )
    return value


_ESCAPED = re.compile(r"\\[nrt](?![A-Za-z])")  # not LaTeX such as \neq
StopTexts = Annotated[list[str], BeforeValidator(_stop_texts)]
OptionalStopTexts = Annotated[
    list[str] | None, BeforeValidator(lambda value: None if value is None else _stop_texts(value))
]


class Section(BaseModel):
    """Base class of all sections: immutable; unknown keys, and numbers that are not finite, are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false where a number is expected: pydantic would read them as 1 and 0."""
        kinds = cls.model_fields[info.field_name or ""].annotation
        given = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if _accepts_number(kinds) and any(isinstance(item, bool) for item in given):
            raise ValueError(f"Input should be a number, not {str(value).lower()}")
        return value


def _accepts_number(annotation: object) -> bool:
    """Whether a type, or one that it contains, is a number, and none is a truth value."""
    kinds = {annotation, *(inner for kind in get_args(annotation) for inner in (kind, *get_args(kind)))}
    return bool(kinds & {int, float}) and bool not in kinds


def changed_keys(section: Section) -> list[str]:
    """Return the keys of a section whose values are not the defaults of its class."""
    return [key for key, value in section if value != type(section).model_fields[key].default]


def require_one(first: str, first_value: object, second: str, second_value: object, example: str) -> None:
    """Raise ValueError unless exactly one of two keys is set."""
    if (first_value is None) == (second_value is None):
        raise ValueError(
            f"{first}={_shown(first_value)} and {second}={_shown(second_value)}: set exactly one of them, such as "
            f"{example}"
        )


def refuse_repeated(key: str, values: Sequence[object], fix: str) -> None:
    """Raise ValueError if a value occurs twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"{key}={values}: {fix}")


def require_both(first: str, first_given: bool, second: str, second_given: bool) -> None:
    """Raise ValueError if only one of two settings is given."""
    if first_given != second_given:
        raise ValueError(f"{first} and {second} require each other: set both or neither")


def _shown(value: object) -> str:
    """Format a value as on the command line."""
    return "null" if value is None else str(value)
