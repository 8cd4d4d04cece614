"""The command line: `python cli.py command=<name> [recipe=<name> [scale=cpu]] [preset=<name>] [group.key=value ...]`.

Exit codes: 0 done, 2 bad configuration or input, 3 a regression, 4 stopped by its budget, 130/143 interrupted,
1 any other failure; the last line on stderr gives the reason.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import NamedTuple

import dotenv
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.config_keys import dotted_keys, explain, keep_texts
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.writable import check_folder
from grpo_gsm8k.orchestrator.overrides import compose_arguments
from grpo_gsm8k.orchestrator.resume import resumed_values
from grpo_gsm8k.tracking.saved_config import CONF, recipes


class Command(NamedTuple):
    """A function of the configuration that returns an exit code; imported only when its command runs."""

    module: str
    function: str
    help: str


COMMANDS = {
    "data": Command("grpo_gsm8k.commands.prepare_data", "prepare_problems", "prepare the data set"),
    "traces": Command("grpo_gsm8k.traces.collect_traces", "collect_traces", "collect solutions from a teacher model"),
    "preprocess": Command("grpo_gsm8k.data.preprocess", "preprocess_texts", "tokenize solutions for command=sft"),
    "sft": Command("grpo_gsm8k.orchestrator.run", "run_training", "train on solutions"),
    "policy_gradient": Command("grpo_gsm8k.orchestrator.run", "run_training", "train with a policy-gradient method"),
    "eval": Command("grpo_gsm8k.commands.evaluate", "evaluate", "evaluate models, or only generate"),
    "report": Command("grpo_gsm8k.report.write_report", "write_report", "write an HTML page about runs"),
    "replay": Command("grpo_gsm8k.commands.replay_update", "replay_update", "compute a recorded update again"),
    "merge": Command("grpo_gsm8k.commands.merge", "merge_adapter", "merge an adapter into its base model"),
    "push": Command("grpo_gsm8k.commands.push", "push_model", "upload a model to the Hugging Face Hub"),
    "doctor": Command("grpo_gsm8k.preflight.doctor", "doctor", "check this machine, and whether the run fits it"),
    "pipeline": Command("grpo_gsm8k.commands.pipeline", "run_pipeline", "run several commands in order"),
}


def main(arguments: list[str]) -> int:
    """Compose and check the configuration, then run the command; returns the exit code."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())
        return 0 if arguments else 2
    dotenv.load_dotenv(CONF.parent / ".env")  # variables that are already set take precedence
    try:
        return run(load_config(arguments), arguments)
    except UserError as error:
        return fail(error, 2)
    except LabError as error:
        return fail(error, 1)
    except Exception as error:  # noqa: BLE001 - the last frame: every failure ends with a one-line reason
        traceback.print_exc()
        return fail(f"{type(error).__name__}: {error}", 1)


def run(config: Config, arguments: list[str]) -> int:
    """Import and run the command; `pipeline` also needs the arguments, to pass them on to its stages."""
    check_folders(config)
    command = COMMANDS[config.command]
    function = getattr(importlib.import_module(command.module), command.function)
    code: int = function(config, arguments) if config.command == "pipeline" else function(config)
    return code


def check_folders(config: Config) -> None:
    """Raise UserError unless every folder that the command writes to can be written."""
    check_folder("artifacts", config.artifacts)
    for name in ("runs", "models", "reports"):
        if (config.artifacts / name).exists():
            check_folder("artifacts", config.artifacts / name)
    if config.command in ("sft", "policy_gradient"):
        check_folder("shm", config.shm)
    if config.command == "report" and config.report.output is not None:
        check_folder("report.output", config.report.output)
    if config.command == "merge" and config.output is not None:
        check_folder("output", config.output)


def load_config(arguments: list[str]) -> Config:
    """Compose and check the configuration; a resumed run's own is the base. Raises UserError that names the key."""
    keys, groups = dotted_keys(Config), [path.name for path in CONF.iterdir() if path.is_dir()]
    try:
        words = keep_texts(arguments, keys, groups)
        values = resumed_values(words) or compose_arguments(words)
        if values["artifacts"] == "":
            raise UserError("artifacts is empty: set artifacts=FOLDER")
        return parse_config(values)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, keys, groups)) from None


def usage() -> str:
    """Return the help text: commands, presets and where the keys are documented."""
    commands = "\n".join(f"  {name:16} {command.help}" for name, command in COMMANDS.items())
    names = f"recipes: {', '.join(recipes())}\npresets: {', '.join(presets())}"
    return f"{__doc__}\ncommands:\n{commands}\n{names}\nkeys: see {CONF}"


def presets() -> list[str]:
    """Return the names for `preset=`."""
    return sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


def fail(error: object, code: int) -> int:
    """Print the reason as the last line on stderr; returns `code`."""
    sys.stdout.flush()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
