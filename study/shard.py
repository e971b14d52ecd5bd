"""A slice of a study's trials, for processes that share nothing but the store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trainables.errors import BadOption


@dataclass(frozen=True)
class Shard:
    """One of several slices, written `3/16`.

    Attributes:
        index: which one, from 1.
        count: how many there are.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `3/16`.

        Raises:
            BadOption: it is none.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        shard = cls(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.index <= shard.count:
            raise BadOption(f"--shard: expected one of N slices such as 3/16, found {text!r}")
        return shard

    def of(self, ids: Iterable[str]) -> frozenset[str]:
        """Its own of all ids: slices are disjoint, whole together, and differ by one at most.

        Ids are digests, so that each slice has some of every method. An added trial moves others
        to other slices; what is finished is in the store, and skipped there.
        """
        return frozenset(sorted(ids)[self.index - 1 :: self.count])
