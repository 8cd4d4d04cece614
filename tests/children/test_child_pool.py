"""A pool answers many threads at once, also when some of its children are killed."""

from concurrent.futures import ThreadPoolExecutor

from grpo_gsm8k.children.child_pool import ChildPool
from grpo_gsm8k.children.limited_child import ChildError, Limits


def test_requests_of_many_threads_are_answered() -> None:
    pool = ChildPool("tests.children.obedient_child", [], Limits(wall_s=30, memory_mb=1024), size=2)

    def ask(number: int) -> object:
        try:
            return pool.call("exit" if number % 10 == 3 else number)
        except ChildError as error:
            return error.kind

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(20)))
        assert found == ["exit" if n % 10 == 3 else n for n in range(20)]
        assert len(pool.pids) <= 2
        assert pool.call(1) == 1
        assert pool.pids  # a child that answered goes on
        pool.close()
    assert pool.pids == []
