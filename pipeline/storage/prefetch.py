"""Prefetching iterators, whose work runs in threads ahead of the consumer."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    depth: int,
    initializer: Callable[[], None] | None = None,
) -> Generator[Result]:
    """Maps a function over items in order, in threads, up to `depth` results ahead of the consumer.

    `items` is advanced in the consumer's thread; each thread calls `initializer` first. An exception of `function` is
    raised at its position in the order.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def prefetch(items: Iterable[Item], *, depth: int) -> Generator[Item]:
    """Advances an iterable in a thread, at most `depth` items ahead of the consumer; passes its exceptions on."""
    done = object()
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)  # so that a stopped consumer is noticed
            except queue.Full:
                continue
            return True
        return False

    def advance() -> None:
        try:
            all(put(item) for item in items)
        except BaseException as error:  # noqa: BLE001 - passed to the consumer
            failure.append(error)
        put(done)

    thread = threading.Thread(target=advance, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not done:
            yield item  # type: ignore[misc]
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
