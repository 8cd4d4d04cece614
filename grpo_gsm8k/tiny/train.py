"""Training of the embedded model: `python -m grpo_gsm8k.tiny.train [--out FOLDER] [--seed 0] [--steps N]`.

One thread, float32, plain AdamW: on the same machine with the same versions, the weights are bitwise reproducible.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn import functional
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from grpo_gsm8k.tiny import MODEL_FOLDER
from grpo_gsm8k.tiny.corpus import Corpus, Document, corpus_hash
from grpo_gsm8k.tiny.network import EOS_ID, PAD_ID, build_model
from grpo_gsm8k.tiny.probe import accuracy
from grpo_gsm8k.tiny.sums import HELD_OUT_COUNT, demo_problems
from grpo_gsm8k.tiny.tokenizer import build_tokenizer

IGNORED = -100
PHASES = ("drills", "exercises", "excerpts", "answers")  # in this order; named after the methods of Corpus


@dataclass(frozen=True, slots=True)
class Phase:
    """One pass over documents of one kind, with its own warmup and cosine decay."""

    steps: int
    batch_size: int
    lr: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """All parameters of the training; with code and package versions, they determine the weights."""

    seed: int = 0
    drills: Phase = Phase(steps=1200, batch_size=64, lr=3e-3)
    exercises: Phase = Phase(steps=1100, batch_size=32, lr=4e-3)
    excerpts: Phase = Phase(steps=400, batch_size=32, lr=3e-3)
    answers: Phase = Phase(steps=500, batch_size=32, lr=2e-3)
    warmup_steps: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    @property
    def phases(self) -> dict[str, Phase]:
        return {name: getattr(self, name) for name in PHASES}

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases.values())

    def scaled(self, steps: int) -> Recipe:
        """Scale the recipe to about `steps` steps in total, at least one per phase."""
        shorter = {
            name: replace(phase, steps=max(1, round(phase.steps * steps / self.steps)))
            for name, phase in self.phases.items()
        }
        return replace(self, **shorter)  # type: ignore[arg-type]


def encode(tokenizer: Qwen2Tokenizer, document: Document) -> tuple[list[int], list[int]]:
    """Return token ids with <eos>, and labels for the learned spans."""
    ids: list[int] = []
    labels: list[int] = []
    for span in document:
        piece = tokenizer(span.text)["input_ids"]
        ids += piece
        labels += piece if span.learned else [IGNORED] * len(piece)
    return [*ids, EOS_ID], [*labels, EOS_ID]


def batches(
    tokenizer: Qwen2Tokenizer, documents: list[Document], batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches in document order, padded on the right, to which a causal model never attends."""
    for start in range(0, len(documents), batch_size):
        group = [encode(tokenizer, document) for document in documents[start : start + batch_size]]
        width = max(len(ids) for ids, _ in group)
        ids = [ids + [PAD_ID] * (width - len(ids)) for ids, _ in group]
        labels = [labels + [IGNORED] * (width - len(labels)) for _, labels in group]
        yield torch.tensor(ids), torch.tensor(labels)


def lr_factor(step: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate's factor: linear warmup, then cosine decay to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def fit(
    model: Qwen2ForCausalLM, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]], phase: Phase, recipe: Recipe
) -> float:
    """Train one pass over the batches. Returns the mean loss of the last 50 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, phase.steps, recipe.warmup_steps)
    )
    model.train()
    losses: list[float] = []
    for step, (ids, labels) in enumerate(pairs):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}/{phase.steps} loss {loss.item():.4f}", file=sys.stderr, flush=True)
    tail = losses[-50:]
    return sum(tail) / len(tail)


def train(recipe: Recipe) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer, dict[str, object]]:
    """Return the trained model, its tokenizer, and the facts for MADE_BY.json."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    corpus = Corpus(recipe.seed)
    tokenizer = build_tokenizer()
    model = build_model(recipe.seed)
    seen: list[Document] = []
    facts: dict[str, object] = {}
    for name, phase in recipe.phases.items():
        documents: list[Document] = getattr(corpus, name)(phase.steps * phase.batch_size)
        facts[f"{name}_loss"] = fit(model, batches(tokenizer, documents, phase.batch_size), phase, recipe)
        seen += documents
    return model, tokenizer, {"documents": len(seen), "corpus_sha256": corpus_hash(seen), **facts}


def probe(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer) -> dict[str, object]:
    """Measure the accuracy on 512 held-out questions."""
    problems = demo_problems(HELD_OUT_COUNT - 512, 512)
    torch.manual_seed(0)
    return {
        "probe_questions": len(problems),
        "greedy_accuracy": accuracy(model, tokenizer, problems),
        "sampled_accuracy": accuracy(model, tokenizer, problems, sample=True),
    }


def save(
    folder: Path, model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, recipe: Recipe, facts: dict[str, object]
) -> str:
    """Write the folder and MADE_BY.json. Returns the sha256 of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    made_by = {
        "command": f"python -m grpo_gsm8k.tiny.train --seed {recipe.seed} --steps {recipe.steps}",
        "recipe": asdict(recipe),
        "threads": 1,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        "weights_sha256": digest,
        **facts,
    }
    (folder / "MADE_BY.json").write_text(json.dumps(made_by, indent=2) + "\n")
    return digest


VERSIONED = ("torch", "transformers", "tokenizers", "safetensors", "reasoning-gym")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded tiny model.")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="in all phases together")
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed).scaled(arguments.steps)
    model, tokenizer, facts = train(recipe)
    facts |= probe(model, tokenizer)
    digest = save(arguments.out, model, tokenizer, recipe, facts)
    print(f"{arguments.out}: greedy {facts['greedy_accuracy']:.3f}, weights {digest}")


if __name__ == "__main__":
    main()
