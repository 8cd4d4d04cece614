"""Completion of commands, options, groups and keys in a shell: a script that contains all words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.command_line.arguments import option_names
from grpo_gsm8k.command_line.key_reference import settings
from grpo_gsm8k.command_line.word_checks import groups, options
from grpo_gsm8k.config import Config

if TYPE_CHECKING:
    from grpo_gsm8k.command_line.key_reference import Schema

_BASH = """\
# Completion of grpo-gsm8k: eval "$(grpo-gsm8k --completion bash)"
_grpo_gsm8k() {{
    local typed=${{COMP_LINE:0:COMP_POINT}} words
    typed=${{typed##* }}
    if [[ $typed == *=* ]]; then words='{values}'; else words='{options} {keys}'; fi
    COMPREPLY=($(compgen -W "$words" -- "$typed"))
    if [[ $typed == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#*=}}") # bash replaces only what is after the last "="
    fi
    if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[*]}} != *= ]]; then COMPREPLY=("${{COMPREPLY[*]}} "); fi
}}
complete -o nospace -o default -F _grpo_gsm8k grpo-gsm8k
"""
_ZSH = """\
#compdef grpo-gsm8k
# Completion of grpo-gsm8k: eval "$(grpo-gsm8k --completion zsh)", after compinit
_grpo_gsm8k() {{
    local -a options=({options}) keys=({keys}) values=({values})
    if [[ $PREFIX == -* ]]; then compadd -a options
    elif [[ $PREFIX == *=* ]]; then compadd -a values || _files -P "${{PREFIX%%=*}}="
    else compadd -S '' -a keys; fi
}}
compdef _grpo_gsm8k grpo-gsm8k
"""


def script(shell: str) -> str:
    """Return the script that a shell evaluates: `eval "$(grpo-gsm8k --completion bash)"`."""
    schema = Config.model_json_schema()
    fields = settings(schema, schema)
    keys = [f"{name}=" for name in dict.fromkeys([*fields, *groups()])]
    values = [f"{group}={name}" for group in groups() for name in options(group)]
    values += [f"{key}={value}" for key, field in fields.items() for value in _listed_values(field)]
    text = _BASH if shell == "bash" else _ZSH
    return text.format(options=" ".join(option_names()), keys=" ".join(keys), values=" ".join(dict.fromkeys(values)))


def _listed_values(field: Schema) -> list[str]:
    """Return the values of a key that has a fixed list of them."""
    if "anyOf" in field:
        return [value for choice in field["anyOf"] for value in _listed_values(choice)]
    if field.get("type") == "boolean":
        return ["true", "false"]
    return [str(value) for value in field.get("enum", [])]
