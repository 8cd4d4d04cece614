"""The command line: `python cli.py command=<name> [preset=<name>] [group.key=value ...]`.

Exit codes: 0 done, 2 bad configuration or input, 3 a regression, 4 stopped by its budget, 130/143 interrupted,
1 anything else; the reason is the last line on stderr.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import dotenv
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo_gsm8k.config import Config, parse_config
from grpo_gsm8k.errors import LabError, UserError

CONF = Path(__file__).resolve().parent / "conf"


def main(arguments: list[str]) -> int:
    """Compose the configuration, check it, run the command; returns the exit code."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        names = ", ".join([*COMMANDS, "pipeline"])
        print(f"{__doc__}\ncommands: {names}\npresets: {', '.join(presets())}\nkeys: see {CONF}")
        return 0 if arguments else 2
    dotenv.load_dotenv(CONF.parent / ".env")  # what the environment has already stays
    try:
        config = load_config(arguments)
        if config.command == "pipeline":
            return pipeline(config, arguments)
        return COMMANDS[config.command](config)
    except UserError as error:
        return fail(error, 2)
    except LabError as error:
        return fail(error, 1)
    except Exception as error:  # noqa: BLE001 - the last frame: whatever it is, it ends with a one-line reason
        traceback.print_exc()
        return fail(f"{type(error).__name__}: {error}", 1)


def load_config(arguments: list[str]) -> Config:
    """Compose and check. Raises UserError with one line that names the key."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=arguments)
            return parse_config(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from None


def one_line(error: Exception) -> str:
    """The useful line of one of Hydra's or OmegaConf's messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def presets() -> list[str]:
    """Names for `preset=`."""
    return sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


def fail(error: object, code: int) -> int:
    """Say why, on one line, last on stderr."""
    sys.stdout.flush()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


def data(config: Config) -> int:
    """Prepare the data set."""
    from grpo_gsm8k.data.prepare import prepare_data

    folder = prepare_data(config.data, config.artifacts)
    print(f"{folder.path}: {folder.train} train, {folder.val} validation, {folder.test} test problems")
    return 0


def traces(config: Config) -> int:
    """Ask a teacher for solutions, and keep the good ones."""
    from grpo_gsm8k.traces.collect_traces import collect_traces
    from grpo_gsm8k.traces.local_teacher import local_producer

    return collect_traces(config, local_producer)


def preprocess(config: Config) -> int:
    """Turn texts into token ids."""
    from grpo_gsm8k.data.preprocess import preprocess_texts

    return preprocess_texts(config)


def sft(config: Config) -> int:
    """Train on solutions."""
    from grpo_gsm8k.orchestrator.run import run_training

    return run_training(config)


def policy_gradient(config: Config) -> int:
    """Train with a policy-gradient method."""
    from grpo_gsm8k.orchestrator.run import run_training

    return run_training(config)


def evaluate(config: Config) -> int:
    """Measure the accuracy of models, or only generate."""
    from grpo_gsm8k.commands.evaluate import evaluate_models
    from grpo_gsm8k.evaluation.generate import generate

    if config.eval.suite == "generate":
        return generate(config)
    return evaluate_models(config)


def report(config: Config) -> int:
    """Write a page about runs."""
    from grpo_gsm8k.report.write_report import write_report

    return write_report(config)


def replay(config: Config) -> int:
    """Compute a recorded update again."""
    from grpo_gsm8k.commands.finished_run import replay_step

    return replay_step(config)


def merge(config: Config) -> int:
    """Add an adapter to its base, as a plain model folder."""
    from grpo_gsm8k.commands.finished_run import merge_adapter

    return merge_adapter(config)


def push(config: Config) -> int:
    """Upload a model to the hub."""
    from grpo_gsm8k.commands.finished_run import push_model

    return push_model(config)


def doctor(config: Config) -> int:
    """Say what the machine has, whether the run fits it, and what it will take."""
    from grpo_gsm8k.preflight.doctor import doctor as examine

    return examine(config)


def pipeline(config: Config, arguments: list[str]) -> int:
    """One command after another."""
    from grpo_gsm8k.commands.pipeline import run_pipeline

    return run_pipeline(config, arguments)


COMMANDS = {
    "data": data,
    "traces": traces,
    "preprocess": preprocess,
    "sft": sft,
    "policy_gradient": policy_gradient,
    "eval": evaluate,
    "report": report,
    "replay": replay,
    "merge": merge,
    "push": push,
    "doctor": doctor,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
