"""A server on 127.0.0.1 that scores prompts as vLLM's does, with a real model, and fails when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "teacher"


@dataclass
class Scorer:
    """What the server knows and did: `fault` gives a status and an answer in place of the right one, or None."""

    folder: Path
    fault: Callable[[int], tuple[int, Any] | None] = lambda number: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float64, attn_implementation="eager")

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, Any]:
        with self.lock:
            self.asked.append(body)
            self.keys.add(key)
            if (given := self.fault(len(self.asked))) is not None:
                return given
            if body["model"] != MODEL:
                return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
            prompt = body["prompt"]
            ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            tables = None if body.get("prompt_logprobs") is None else self.tables(ids)
            return 200, {"choices": [{"text": "1", "prompt_logprobs": tables}]}

    @torch.no_grad()
    def tables(self, ids: list[int]) -> list[Any]:
        rows = torch.log_softmax(self.model(torch.tensor([ids])).logits[0], -1)
        scored = [{str(token): {"logprob": float(rows[i, token]), "rank": 1}} for i, token in enumerate(ids[1:])]
        return [None, *scored]


@contextmanager
def serving(scorer: Scorer) -> Iterator[Scorer]:
    """Answer requests at `scorer.url` until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = scorer.answer(body, self.headers.get("Authorization", ""))
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scorer.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield scorer
    finally:
        server.shutdown()
        server.server_close()
