"""An iterator that works ahead in a thread."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from typing import Any

from linstock import errors


class PrefetchIterator:
    """Takes items of an iterator in a thread, before they are asked for.

    Deprecated, as in Flax: `tf.data`, grain and PyTorch's loaders prefetch by themselves.

    Args:
        data_iter: the iterator.
        buffer_size: how many items wait.
    """

    def __init__(self, data_iter: Iterator[Any], buffer_size: int = 1) -> None:
        errors.warn_deprecated(
            "PrefetchIterator is deprecated. Use the standard `tf.data` prefetch method instead"
        )
        self._source = data_iter
        self._size = buffer_size
        self._waiting: collections.deque[Any] = collections.deque()
        self._end: BaseException | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def __iter__(self) -> PrefetchIterator:
        return self

    def __next__(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._end)
            if not self._waiting:
                assert self._end is not None
                raise self._end
            item = self._waiting.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Ends the thread; what waits is dropped."""
        with self._changed:
            self._waiting.clear()
            self._end = self._end or StopIteration()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            item, end = None, None
            try:
                item = next(self._source)
            except BaseException as error:  # raised again where the next item is asked for
                end = error
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) < self._size or self._end)
                if self._end is not None:
                    return
                if end is not None:
                    self._end = end
                else:
                    self._waiting.append(item)
                self._changed.notify_all()
