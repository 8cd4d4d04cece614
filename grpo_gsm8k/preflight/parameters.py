"""Parameter counts and widths of a model, from `config.json` alone or from the headers of its weight files.

No weights are read. `from_config` builds the model on the meta device, which takes seconds of imports; `from_weights`
reads headers in milliseconds. Both return the same; `from_folder` takes the quicker one that is possible.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UnknownShapeError, UserError
from grpo_gsm8k.files.private import callers_umask
from grpo_gsm8k.models import EMBEDDED_TINY, resolve_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import Config

_BLOCK = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)\.(weight|bias)")
_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of one block; `name` is the last part of its full name."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only transformer with gated feed-forward layers. Widths are values per token."""

    parameters: int  # a tied head is counted once
    layers: int
    hidden: int
    intermediate: int
    query: int  # heads x head width
    key_value: int  # key-value heads x head width
    vocab: int
    tied: bool
    linears: tuple[Linear, ...]  # the layers of one block
    teacher: ModelShape | None = None  # a frozen model beside this one, which scores its completions

    @property
    def head(self) -> int:
        """Values in the output head, tied or not."""
        return self.vocab * self.hidden

    @property
    def linear(self) -> int:
        """Values in the weights of all blocks' linear layers."""
        return self.layers * sum(linear.inputs * linear.outputs for linear in self.linears)

    @property
    def trunk(self) -> int:
        """Parameters without an untied head."""
        return self.parameters - (0 if self.tied else self.head)

    @property
    def largest(self) -> int:
        """Values in the largest tensor."""
        return max(self.head, *(linear.inputs * linear.outputs for linear in self.linears))

    def adapter(self, rank: int, targets: list[str]) -> int:
        """Return the parameters of a LoRA adapter: rank x (inputs + outputs) for every adapted layer."""
        return self.layers * sum(rank * (linear.inputs + linear.outputs) for linear in self.adapted(targets))

    def adapted(self, targets: list[str]) -> tuple[Linear, ...]:
        """Return the linear layers of a block that `learner.lora.targets` selects."""
        return self.linears if targets == ["all-linear"] else tuple(x for x in self.linears if x.name in targets)


def from_folder(folder: Path) -> ModelShape:
    """Return the shape of a model of which perhaps only `config.json` is here. Raises UserError as the other two."""
    return from_weights(folder) if _has_all_weights(folder) else from_config(folder)


def _has_all_weights(folder: Path) -> bool:
    """Whether all weight files are here: those of the index if there is one, else at least one."""
    index = folder / "model.safetensors.index.json"
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        return any(folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, AttributeError):
        return False  # damaged: what config.json says is the best that is known
    return all((folder / name).is_file() for name in names)


def from_config(folder: Path) -> ModelShape:
    """Return the shape of the model in `folder/config.json`. Raises UserError for an unsupported architecture."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path: {folder}/config.json is not a trainable model: {error}") from None
    return shape_of({name: tuple(p.shape) for name, p in model.named_parameters()})


def from_weights(folder: Path) -> ModelShape:
    """Return the shape of the weights in `folder`. Raises UserError if unreadable or an unsupported architecture."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="numpy") as opened:
                shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"model.path: the weights in {folder} cannot be read: {error}") from None
    return shape_of({name: shape for name, shape in shapes.items() if not name.endswith("inv_freq")}, folder)


def shape_of(shapes: Mapping[str, tuple[int, ...]], folder: Path | None = None) -> ModelShape:
    """Derive the shape from those of all parameters; the config in `folder` decides whether a saved head is tied."""
    shapes = dict(shapes)
    if folder is not None and _is_tied(folder):
        shapes.pop(_HEAD, None)
    embedding = next((shape for name, shape in shapes.items() if name.endswith("embed_tokens.weight")), None)
    layers = {int(match[1]) for name in shapes if (match := _BLOCK.fullmatch(name))}
    linears = tuple(_linears_of_first_block(shapes))
    widths = {linear.name: linear for linear in linears}
    if embedding is None or not {"q_proj", "k_proj", "gate_proj", "down_proj"} <= set(widths):
        raise UnknownShapeError("model.path: memory is only known for models with the layer names of Llama and Qwen")
    return ModelShape(
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        layers=len(layers),
        hidden=embedding[1],
        intermediate=widths["gate_proj"].outputs,
        query=widths["q_proj"].outputs,
        key_value=widths["k_proj"].outputs,
        vocab=embedding[0],
        tied=_HEAD not in shapes,
        linears=linears,
    )


def with_teacher_shape(shape: ModelShape, config: Config) -> ModelShape:
    """Return the shape with that of the teacher in the learner's process, if the run has one. Raises UserError."""
    pg = config.policy_gradient
    if config.command != "policy_gradient" or pg.advantage_name != "distill" or pg.teacher.path is None:
        return shape
    model = config.model.model_copy(update={"path": pg.teacher.path, "revision": None})
    return replace(shape, teacher=from_folder(folder_of_config(config.model_copy(update={"model": model}))))


def folder_of_config(config: Config) -> Path:
    """Return a folder with the model's `config.json`, the only file downloaded from the hub. Raises UserError."""
    path, revision = config.model.path, config.model.revision
    if path == "embedded:tiny":
        return EMBEDDED_TINY
    if Path(path).is_dir():
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"model.path={path} has no config.json: use a Hugging Face model folder")
        return Path(path)
    if ":" in path or path.count("/") != 1:
        return resolve_model(path, revision, config.artifacts)
    from huggingface_hub import hf_hub_download

    try:
        with callers_umask():
            return Path(hf_hub_download(path, "config.json", revision=revision)).parent
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.path={path}: its config.json is neither reachable on the hub nor cached ({reason}): check the "
            "network and the id, or use a local folder"
        ) from None


def _linears_of_first_block(shapes: Mapping[str, tuple[int, ...]]) -> list[Linear]:
    found = []
    for name, shape in sorted(shapes.items()):
        match = _BLOCK.fullmatch(name)
        if match and match[1] == "0" and match[3] == "weight" and len(shape) == 2:
            found.append(Linear(match[2].rpartition(".")[2], shape[1], shape[0]))
    return found


def _is_tied(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings"))
    except (OSError, ValueError):
        return False
