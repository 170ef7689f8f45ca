"""Progress of long loops, for those who watch: it changes no result."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop to show its progress; yields every item. The text says what is done."""


def silent(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress for those who want none."""
    return items


class Counted(Generic[T]):
    """A generator with the number of items it is expected to give, so that progress knows the time left."""

    def __init__(self, items: Iterable[T], count: int) -> None:
        self._items, self._count = items, count

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __length_hint__(self) -> int:
        return self._count
