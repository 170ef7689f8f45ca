"""Progress of long loops."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Wraps a loop to show its progress; yields every item. The text says what is done."""


def silent(items: Iterable[T], what: str) -> Iterable[T]:
    """Progress for those who want none."""
    return items
