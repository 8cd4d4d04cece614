"""The command line: `python cli.py command=<name> [recipe=<name> [scale=cpu]] [preset=<name>] [group.key=value ...]`.

Installed, it is called `grpo-gsm8k`.

Exit codes: 0 done, 2 bad configuration or input, 3 a regression, 4 stopped by its budget, 130/143 interrupted,
1 any other failure; the last line on stderr gives the reason.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dotenv

from grpo_gsm8k import faults
from grpo_gsm8k.command_line.arguments import Arguments, parse_arguments
from grpo_gsm8k.command_line.command_table import COMMANDS
from grpo_gsm8k.command_line.loading import load_config
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.private import private_files
from grpo_gsm8k.files.writable import check_folder
from grpo_gsm8k.tracking.gpu_list import DEVICE_ORDER
from grpo_gsm8k.tracking.saved_config import CONF

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


# Libraries read these when they are imported: their bars would garble ours.
NO_PROGRESS_BARS = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


class Ending(NamedTuple):
    """Exit code of a command, and the line that gives the reason of a failure."""

    code: int
    error: str | None


def console_main() -> int:
    """Run the arguments of this process; the entry point of the installed command."""
    return main(sys.argv[1:])


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; returns the exit code."""
    return execute(arguments).code


def execute(arguments: Sequence[str]) -> Ending:
    """Do what the arguments say, and print the reason of a failure as the last line on stderr."""
    dotenv.load_dotenv(env_file())  # variables that are already set take precedence
    for name in NO_PROGRESS_BARS:
        os.environ.setdefault(name, "1")
    os.environ.update(DEVICE_ORDER)
    try:
        return Ending(_run(parse_arguments(arguments)), None)
    except KeyboardInterrupt:  # before training, which saves a checkpoint first, or in another command
        return _fail("interrupted", 128 + signal.SIGINT)
    except UserError as error:
        return _fail(error, 2)
    except LabError as error:
        return _fail(error, 1)
    except Exception as error:  # noqa: BLE001 - the last frame: every failure ends with a one-line reason
        traceback.print_exc()
        return _fail(f"{type(error).__name__}: {error}", 1)


def env_file() -> Path:
    """Return the path of `.env`: in the root of a checkout; for an installed package, in the working directory."""
    root = CONF.parent
    return (root if (root / "cli.py").is_file() else Path.cwd()) / ".env"


def _run(given: Arguments) -> int:
    from grpo_gsm8k.command_line import (  # lazy: workers import this module
        help_text,
        shell_completion,
        shown_config,
        sweep,
    )

    if given.multirun:
        return sweep.run_sweep(given.words, given.job)
    if given.cfg:
        print(shown_config.config_text(given.words, given.package), end="")
    elif given.completion:
        print(shell_completion.script(given.completion), end="")
    elif given.help and given.words:
        print(help_text.command_help(given.words))
    elif given.help or not given.words:
        print(help_text.usage(__doc__ or ""))
        return 0 if given.help else 2
    else:
        return run_words(given.words)
    return 0


def run_words(words: Sequence[str]) -> int:
    """Check the configuration, then import and run its command; `pipeline` also passes the words on to its stages."""
    if faults.requested():
        print(f"note: {faults.VARIABLE} is set: workers are killed, stopped and delayed on purpose", file=sys.stderr)
    config = load_config(words)
    check_folders(config)
    command = COMMANDS[config.command]
    function = getattr(importlib.import_module(command.module), command.function)
    with private_files() if config.private_files else nullcontext():
        code: int = function(config, words) if config.command == "pipeline" else function(config)
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


def _fail(error: object, code: int) -> Ending:
    reason = " ".join(str(error).split())
    sys.stdout.flush()
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return Ending(code, reason)
