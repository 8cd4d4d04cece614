"""The texts of `--help` and `command=X --help`."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.command_line.command_table import COMMANDS
from grpo_gsm8k.command_line.key_reference import settings, shown_value, values_of
from grpo_gsm8k.command_line.loading import composed_values, presets
from grpo_gsm8k.command_line.word_checks import groups, options
from grpo_gsm8k.command_line.yaml_comments import read_conf
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.orchestrator.overrides import value_at
from grpo_gsm8k.terminal.program_name import program
from grpo_gsm8k.tracking.saved_config import CONF, recipes

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WIDTH = 120
OPTIONS = """\
options:
  -h, --help         this text; with command=NAME: the keys of that command
  -c, --cfg job      print the composed and checked configuration as YAML, and
                     start nothing; -p, --package SECTION prints one section
  -m, --multirun     a sweep: one run after another for each combination of
                     comma-separated values, as in seed=0,1,2
      --job N        with -m: only job N (from 0), for a cluster's job arrays
      --completion bash|zsh   print a script that completes words in that shell
"""


def usage(introduction: str) -> str:
    """Return the help text: options, commands and presets."""
    texts = [_wrapped(text, "") for text in introduction.strip().split("\n\n")]
    names = {"recipes": recipes(), "presets": presets()}
    lines = ["commands:", *(f"  {name:16} {command.help}" for name, command in COMMANDS.items()), ""]
    for title, found in names.items():
        lines += _wrapped(f"{title}: {', '.join(found)}", "", hanging="  ")
    lines += _wrapped(f"keys: {program()} command=NAME --help, or docs/configuration.md", "", hanging="  ")
    return "\n".join([*("\n".join([*text, ""]) for text in texts), OPTIONS, *lines, f"files: {CONF}"])


def command_help(words: Sequence[str]) -> str:
    """Return the keys that a command reads, with the values that the words give them. Raises UserError."""
    values = composed_values(words)
    command = COMMANDS.get(values["command"])
    if command is None:
        raise UserError(f"command={values['command']} is unknown: use one of {', '.join(COMMANDS)}")
    schema = Config.model_json_schema()
    fields, comments = settings(schema, schema), _comments()
    lines = [f"command={values['command']}: {command.help}", "", *_group_lines(command.keys), ""]
    lines += ["keys, with their values under these arguments:"]
    for key, field in fields.items():
        if any(key == part or key.startswith(f"{part}.") for part in command.keys):
            meanings = dict.fromkeys(filter(None, [values_of(field), comments.get(key)]))
            lines += _wrapped(f"{key}={shown_value(value_at(values, key))}", "  ", hanging="    ")
            lines += _wrapped("; ".join(meanings), "      ")
    return "\n".join(lines)


def _group_lines(keys: Sequence[str]) -> list[str]:
    """Return one entry per configuration group with a choice, among those of a command."""
    wanted = (*keys, "preset", "recipe", "scale")
    chosen = [group for key in wanted for group in groups() if group == key or group.startswith(f"{key}/")]
    chosen = [group for group in chosen if len(options(group)) > 1]
    found = [line for group in chosen for line in _wrapped(f"{group}={'|'.join(options(group))}", "  ", "|")]
    return ["groups, replaced as a whole:", *found]


def _comments() -> dict[str, str]:
    """Return the comment of every key, from the options that are the default of their group."""
    main = read_conf(CONF / "config.yaml")
    found = dict(main.comments)
    for entry in main.bases:
        for group, name in entry.items() if isinstance(entry, dict) else ():
            if name is None:  # recipe
                continue
            file = read_conf(CONF / group / f"{name}.yaml")
            found |= {f"{group}.{key}": comment for key, comment in file.comments.items()}
    return found


def _wrapped(text: str, indent: str, at: str = " ", hanging: str | None = None) -> list[str]:
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    spaced: Any = text if at == " " else text.replace(at, f"{at}\0 ")
    lines = textwrap.wrap(
        spaced,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace("\0 ", "").replace("\0", "") for line in lines]
