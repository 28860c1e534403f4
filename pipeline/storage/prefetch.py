"""Work that runs ahead of its consumer, in threads."""

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
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, depth: int
) -> Generator[Result]:
    """As `map`, in order, with up to `depth` results begun by threads before the consumer asks for them.

    `items` is advanced by the consumer's thread. An exception of `function` is raised at its place in the order.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
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
    """Advances an iterable in a thread of its own, at most `depth` items ahead. Raises what the iterable raises."""
    done = object()
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)  # so that a consumer who left is noticed
            except queue.Full:
                continue
            return True
        return False

    def advance() -> None:
        try:
            all(put(item) for item in items)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
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
