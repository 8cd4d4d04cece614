"""vLLM's HTTP server for one model, on the loopback address only, for lm-eval's `local-completions`."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from grpo_gsm8k.children.own_python import module_command
from grpo_gsm8k.errors import WorkerError
from grpo_gsm8k.runtime.actor_process import actor_environment
from grpo_gsm8k.runtime.program import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grpo_gsm8k.config import Config

HOST = "127.0.0.1"  # loopback only: the API key does not protect all of vLLM's routes
POLL_SECONDS = 0.5


@contextlib.contextmanager
def served(config: Config, model_folder: Path, logs: Path) -> Iterator[str]:
    """Start a server, wait until it is healthy, yield its completions URL, and stop it.

    It is killed if this process dies. Raises WorkerError with the end of its log if it does not start.
    """
    port = _free_port()
    log = logs / "server.log"
    environment = {**os.environ, **actor_environment(config, 0)}
    with running(_command(config, model_folder, port), environment, log) as process:
        deadline = time.monotonic() + config.actor.start_timeout_s
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise WorkerError(f"the vLLM server did not start; see {log}: {_last_line(log)}")
            time.sleep(POLL_SECONDS)
        yield f"http://{HOST}:{port}/v1/completions"


def _command(config: Config, model_folder: Path, port: int) -> list[str]:
    actor = config.actor
    command = module_command("vllm.entrypoints.openai.api_server")
    command += ["--model", str(model_folder), "--host", HOST, "--port", str(port), "--seed", str(config.seed)]
    command += ["--dtype", actor.dtype, "--max-model-len", str(actor.max_model_len)]
    command += ["--max-num-seqs", str(actor.max_num_seqs), "--max-num-batched-tokens", str(actor.max_batched_tokens)]
    command += ["--generation-config", "vllm", "--disable-uvicorn-access-log"]
    if actor.enforce_eager:
        command.append("--enforce-eager")
    if actor.device == "cpu":  # same settings as the actor's engine, see actor/engine_arguments.py
        return [*command, "--no-enable-chunked-prefill", "--kv-cache-memory-bytes", str(actor.kv_cache_mb * 2**20)]
    return [*command, "--gpu-memory-utilization", str(actor.gpu_memory)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "the log is empty"
