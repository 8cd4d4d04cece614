"""The command line of a checkout: `python cli.py command=<name> ...`; the installed package calls it `grpo-gsm8k`."""

from __future__ import annotations

import sys

from grpo_gsm8k.command_line.command_table import COMMANDS
from grpo_gsm8k.command_line.entry import console_main, main
from grpo_gsm8k.command_line.loading import load_config, presets
from grpo_gsm8k.tracking.saved_config import CONF

__all__ = ["COMMANDS", "CONF", "load_config", "main", "presets"]

if __name__ == "__main__":
    sys.exit(console_main())
