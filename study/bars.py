"""A bar on what takes a while, with the time that is left; in a terminal alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def along(items: Sequence[T], what: str) -> Iterable[T]:
    """The items one after another, with a bar that is gone at the end.

    Args:
        items: each about as much work.
        what: the work, in a word.
    """
    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)
