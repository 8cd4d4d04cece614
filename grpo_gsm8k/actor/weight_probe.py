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


def probe_weights(model: torch.nn.Module, file: str) -> Probe:
    """Compare the running `model` with the safetensors file of the plain Hugging Face model."""
    compared = 0
    with torch.no_grad(), safe_open(file, framework="pt") as tensors:
        for name, place in _places(model, tensors):
            expected = tensors.get_slice(name)
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


def _compare_parameter(place: _Place, expected: Any) -> list[bool]:
    """Compare rows of the parameter itself; nothing where the engine keeps only a repacked copy."""
    actual, shape = getattr(place.module, place.parameter), expected.get_shape()
    if list(actual.shape[1:]) != shape[1:] or len(actual) < place.offset + shape[0]:
        return []
    spans = _spans(shape[0]) if len(shape) > 1 else [slice(0, shape[0])]
    return [_equal(actual[place.offset + rows.start : place.offset + rows.stop], expected[rows]) for rows in spans]


def _compare_product(place: _Place, expected: Any) -> list[bool]:
    """Compare columns through the layer's own matrix product with unit vectors, which is exact.

    On a CPU the product uses a repacked copy, which cannot be read in another way.
    """
    shape = expected.get_shape()
    if place.parameter != "weight" or len(shape) != 2 or not hasattr(place.module, "cpu_linear"):
        return []
    layer: Any = place.module
    results = []
    for columns in _spans(shape[1]):
        wanted = expected[:, columns]
        units = torch.zeros(wanted.shape[1], shape[1], dtype=wanted.dtype)
        units[:, columns] = torch.eye(wanted.shape[1], dtype=wanted.dtype)
        product = layer.quant_method.apply(layer, units.to(layer.weight.dtype))
        results.append(_equal(product[:, place.offset : place.offset + shape[0]].T, wanted))
    return results


def _spans(size: int) -> list[slice]:
    starts = {0, max(0, size // 2), max(0, size - SPAN)}
    return [slice(start, min(size, start + SPAN)) for start in sorted(starts)]


def _equal(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.equal(actual, expected.to(device=actual.device, dtype=actual.dtype))
