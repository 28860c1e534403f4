"""Prefetching: ordered, bounded, and stopped when the consumer leaves."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.storage.prefetch import prefetch, prefetch_map

WAIT_S = 20  # for what happens at once, unless it never does


class Source:
    """An iterator that counts the items taken from it."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    def __iter__(self) -> Iterator[int]:
        for item in range(self.count):
            self.taken += 1
            yield item


def broken(at: int) -> Iterator[int]:
    yield from range(at)
    raise KeyError(at)


def running() -> set[threading.Thread]:
    return set(threading.enumerate())


def inverse(item: int) -> float:
    return 12 / (item - 3)


@pytest.mark.parametrize(("threads", "depth"), [(1, 0), (2, 1), (3, 5), (4, 100)])
def test_results_come_in_order(threads: int, depth: int) -> None:
    assert list(prefetch_map(str, range(40), threads=threads, depth=depth)) == [str(i) for i in range(40)]


def test_the_first_result_may_be_the_last_to_be_done() -> None:
    last_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert last_done.wait(WAIT_S)
        if item == 2:
            last_done.set()
        return item

    assert list(prefetch_map(work, range(3), threads=2, depth=3)) == [0, 1, 2]


def test_no_more_is_begun_than_asked_for() -> None:
    source = Source(50)
    results = prefetch_map(str, source, threads=2, depth=4)
    for received in range(1, 6):
        next(results)
        assert source.taken == received + 4
    results.close()


def test_nothing_is_begun_before_the_first_is_wanted() -> None:
    source = Source(5)
    prefetch_map(str, source, threads=2, depth=4)
    assert source.taken == 0


def test_an_exception_is_raised_at_its_place() -> None:
    received, before = [], running()
    with pytest.raises(ZeroDivisionError):
        received.extend(prefetch_map(inverse, range(9), threads=2, depth=4))
    assert received == [-4.0, -6.0, -12.0]
    assert running() == before


def test_an_exception_of_the_items_comes_through() -> None:
    with pytest.raises(KeyError, match="5"):
        list(prefetch_map(str, broken(5), threads=2, depth=2))


def test_a_consumer_who_leaves_ends_the_threads() -> None:
    before, begun = running(), []
    results = prefetch_map(begun.append, range(1000), threads=2, depth=4)
    next(results)
    results.close()
    assert running() == before
    assert len(begun) <= 5


def test_items_come_in_order_from_the_background() -> None:
    assert list(prefetch(range(40), depth=3)) == list(range(40))


def test_none_and_false_are_items_too() -> None:
    assert list(prefetch([None, 0, False, ""], depth=2)) == [None, 0, False, ""]


def test_no_items_are_no_items() -> None:
    assert list(prefetch([], depth=2)) == list(prefetch_map(str, [], threads=2, depth=2)) == []


def test_the_background_is_a_thread_of_its_own() -> None:
    (thread,) = prefetch((threading.get_ident() for _ in range(1)), depth=2)
    assert thread != threading.get_ident()


def test_the_background_is_at_most_so_far_ahead() -> None:
    far, source = threading.Event(), Source(50)

    def noted() -> Iterator[int]:
        for item in source:
            if item == 4:  # one is received, three wait, and this one has no place yet
                far.set()
            yield item

    items = prefetch(noted(), depth=3)
    next(items)
    assert far.wait(WAIT_S)
    assert source.taken == 5
    items.close()


def test_an_exception_of_the_background_comes_after_what_it_gave() -> None:
    received, before = [], running()
    with pytest.raises(KeyError, match="7"):
        received.extend(prefetch(broken(7), depth=3))
    assert received == list(range(7))
    assert running() == before


def test_a_consumer_who_leaves_ends_the_background() -> None:
    before, source = running(), Source(1000)
    items = prefetch(source, depth=3)
    next(items)
    items.close()
    assert running() == before
    assert source.taken <= 6
