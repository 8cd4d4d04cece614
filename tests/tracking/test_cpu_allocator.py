"""The allocator of processes on a CPU: the first that is installed, unless the user names one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grpo_gsm8k.tracking import cpu_allocator
from grpo_gsm8k.tracking.cpu_allocator import allocator_variables, installed_allocator


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    installed_allocator.cache_clear()
    yield
    installed_allocator.cache_clear()


def has(monkeypatch: pytest.MonkeyPatch, **libraries: str) -> None:
    monkeypatch.setattr(cpu_allocator, "find_library", libraries.get)


def test_the_fastest_one_that_is_installed_is_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, jemalloc="libjemalloc.so.2", tcmalloc="libtcmalloc.so.4")
    assert allocator_variables()["LD_PRELOAD"] == "libtcmalloc.so.4"


def test_without_one_the_c_librarys_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    assert allocator_variables() == {}


@pytest.mark.parametrize("given", ["", "libmimalloc.so.2"])
def test_the_users_choice_stands(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    has(monkeypatch, tcmalloc_minimal="libtcmalloc_minimal.so.4")
    monkeypatch.setenv("LD_PRELOAD", given)
    assert allocator_variables() == {}
