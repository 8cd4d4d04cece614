"""Comparison of an engine's weights with the file they were loaded from: samples of every tensor, bit by bit.

Log-probabilities change too little per update to reveal a reload that was skipped, or that missed a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEAD = "lm_head"
EMBEDDING = "embed_tokens"
FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
SPAN = 2  # rows or columns compared at the start, in the middle and at the end of a matrix


class Probe(NamedTuple):
    """Number of tensors that could be compared, and the first one that differs ("": none)."""

    compared: int
    differs: str


class _Place(NamedTuple):
    """The engine's module for a tensor, the tensor's name there, and its first row in a fused parameter."""

    module: torch.nn.Module
    parameter: str
    offset: int


def probe_weights(model: torch.nn.Module, file: str, rank: int = 0, ranks: int = 1) -> Probe:
    """Compare the running `model` with the safetensors file of the plain Hugging Face model.

    `model` is part number `rank` of `ranks` of a model that is divided among as many processes (Megatron-LM,
    arXiv:1909.08053: heads and intermediate units, and rows of the embedding).
    """
    compared = 0
    with torch.no_grad(), safe_open(file, framework="pt") as tensors:
        for name, place in _places(model, tensors):
            expected = tensors.get_tensor(name)  # mapped: only the pages that are compared are read
            if ranks > 1:
                place, expected = _part(place, expected, rank, ranks)
            results = [*_compare_parameter(place, expected), *_compare_product(place, expected)]
            compared += bool(results)
            if not all(results):
                return Probe(compared, name)
    return Probe(compared, "")


def _places(model: torch.nn.Module, tensors: Any) -> Iterator[tuple[str, _Place]]:
    """Yield the file's tensors and where the engine keeps them; a tied embedding comes twice."""
    modules = dict(model.named_modules(remove_duplicate=False))
    fused = {**FUSED, **getattr(model, "packed_modules_mapping", {})}
    names = set(tensors.keys())
    tied = not any(name.startswith(HEAD) for name in names)
    for name in sorted(names):
        path, _, parameter = name.rpartition(".")
        place = _place(modules, path, parameter) or _fused_place(modules, path, parameter, fused, tensors, names)
        if place is not None:
            yield name, place
        head = _place(modules, HEAD, parameter) if tied and path.endswith(EMBEDDING) else None
        if head is not None:
            yield name, head


def _place(modules: Mapping[str, torch.nn.Module], path: str, parameter: str, offset: int = 0) -> _Place | None:
    """Find the module by its path, or by the longest part of it that only one module's name ends with.

    Wrappers of the engine change the beginning of a path (`model.language_model.` for `language_model.model.`).
    """
    rest = path
    while rest:
        found = [path] if path in modules else [name for name in modules if f".{name}".endswith(f".{rest}")]
        if len(found) == 1:
            has_it = isinstance(getattr(modules[found[0]], parameter, None), torch.Tensor)
            return _Place(modules[found[0]], parameter, offset) if has_it else None
        if found:
            return None
        rest = rest.partition(".")[2]
    return None


def _fused_place(
    modules: Mapping[str, torch.nn.Module],
    path: str,
    parameter: str,
    fused: Mapping[str, list[str]],
    tensors: Any,
    names: set[str],
) -> _Place | None:
    """Find the rows of a fused parameter: those after the parts that come before this one."""
    parent, _, part = path.rpartition(".")
    for whole, parts in fused.items():
        before = [f"{parent}.{other}.{parameter}" for other in parts[: parts.index(part)]] if part in parts else None
        if before is not None and names.issuperset(before):
            offset = sum(tensors.get_slice(other).get_shape()[0] for other in before)
            place = _place(modules, f"{parent}.{whole}", parameter, offset)
            if place is not None:
                return place
    return None


def _part(place: _Place, expected: torch.Tensor, rank: int, ranks: int) -> tuple[_Place, torch.Tensor]:
    """Return the rows or columns of a tensor that one process holds, and where it holds them."""
    layer: Any = place.module
    vocabulary = getattr(layer, "shard_indices", None)
    if vocabulary is not None:
        return place, expected[vocabulary.org_vocab_start_index : vocabulary.org_vocab_end_index]
    rows = getattr(layer, "output_size_per_partition", None)
    columns = getattr(layer, "input_size_per_partition", None)
    if rows is None or columns is None:  # a norm: every process has all of it
        return place, expected
    if expected.dim() == 2 and columns * ranks == expected.shape[1]:
        return place, expected.chunk(ranks, dim=1)[rank]
    if rows * ranks == layer.output_size:
        return place._replace(offset=place.offset // ranks), expected.chunk(ranks)[rank]
    return place, expected


def _compare_parameter(place: _Place, expected: torch.Tensor) -> list[bool]:
    """Compare rows of the parameter itself; nothing where the engine keeps only a repacked copy."""
    actual = getattr(place.module, place.parameter)
    if actual.shape[1:] != expected.shape[1:] or len(actual) < place.offset + len(expected):
        return []
    rows = _spread(len(expected)) if expected.dim() > 1 else list(range(len(expected)))
    return [_equal(actual[[place.offset + row for row in rows]], expected[rows])]


def _compare_product(place: _Place, expected: torch.Tensor) -> list[bool]:
    """Compare columns through the layer's own matrix product with unit vectors, which is exact.

    On a CPU the product uses a repacked copy, which cannot be read in another way.
    """
    layer: Any = place.module
    if place.parameter != "weight" or expected.dim() != 2 or not hasattr(layer, "cpu_linear"):
        return []
    columns = _spread(expected.shape[1])
    units = torch.zeros(len(columns), expected.shape[1], dtype=layer.weight.dtype)
    units[range(len(columns)), columns] = 1
    product = layer.quant_method.apply(layer, units)[:, place.offset : place.offset + len(expected)]
    return [_equal(product.T, expected[:, columns])]


def _spread(size: int) -> list[int]:
    """Indices at the start, in the middle and at the end."""
    return sorted({i for start in (0, size // 2, size - SPAN) for i in range(start, start + SPAN) if 0 <= i < size})


def _equal(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.equal(actual, expected.to(device=actual.device, dtype=actual.dtype))
