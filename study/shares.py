"""What share of a GPU trials take: what the study file says, or what they are measured to need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from study.cost import Kinds, Need, add_examples, cells_of, told
from study.planned import Plan, PlannedTrial
from study.spec import Share
from trainables.config import Cell, TrialConfig
from trainables.datasets.base import Dataset
from trainables.execution import Execution
from trainables.memory import Memory, measured
from trainables.store import Store

SPARE = 1.15  # times what was measured: the allocator's blocks leave gaps
LABEL = 8  # bytes


class Shares:
    """Shares of a GPU.

    Args:
        asked: the study file's, 0 where there is no GPU; `auto` for as much as trials need.
        more: times as much, where trials have run out of memory.

    Its memos go by identity: the trials have to outlive it.
    """

    def __init__(self, asked: Share, more: int = 1) -> None:
        self.asked, self.more = asked, more
        self._memories: list[Memory] = []
        self._data = 0
        self._kinds = Kinds()
        self._found: dict[tuple[Need, ...], float] = {}  # shares, by work

    def examples(self, trials: Iterable[PlannedTrial]) -> dict[str, TrialConfig]:
        """What is to be measured of trials, by kind of work; see `trainables.memory.measured`."""
        found: dict[str, tuple[PlannedTrial, Cell | None]] = {}
        seen: set[tuple[Need, ...]] = set()
        for trial in trials if self.asked == "auto" else ():
            needs = self._needs(trial)
            if needs not in seen:
                seen.add(needs)
                add_examples(found, trial, cells_of(trial), needs)
        return {
            kind: TrialConfig(model=trial.model, cells=() if cell is None else (cell,))
            for kind, (trial, cell) in found.items()
        }

    def learn(self, memories: Iterable[Memory], trials: Iterable[PlannedTrial]) -> None:
        """Takes in what was measured on each kind of GPU, and which data a worker may hold."""
        self._memories = list(memories)
        self._data = sum(map(_size, {trial.model.dataset for trial in trials}))

    def of(self, trials: Sequence[PlannedTrial]) -> float:
        """The share of trials that are trained at once, and attacked one after another."""
        share = self._measured(trials) if self.asked == "auto" else self.asked
        return min(self.more * share, 1.0)

    def _measured(self, trials: Sequence[PlannedTrial]) -> float:
        work = tuple(need for trial in trials for need in self._needs(trial))
        if work not in self._found:
            needed = [self._needed(work, memory) for memory in self._memories]
            self._found[work] = max(needed, default=1.0)
        return self._found[work]

    def room(self, share: float) -> float:
        """The share of a GPU's memory that is left to tensors of a share."""
        fixed = (memory.fixed / memory.total for memory in self._memories if memory.total)
        return max(share - max(fixed, default=0.0), share / 2)

    def _needed(self, work: Sequence[Need], memory: Memory) -> float:
        """One of as many equal shares as there is room for; all where nothing is known.

        A search may try what nobody foresaw: it is taken for the largest that is known.
        """
        largest = max(memory.own.values(), default=memory.total)
        own = [(need, memory.own.get(need.kind, largest)) for need in work]
        training = sum(size for need, size in own if not need.cells)
        attacks = max((size for need, size in own if need.cells), default=0)
        needed = memory.fixed + self._data + SPARE * max(training, attacks)
        return 1 / max(memory.total // needed, 1)

    def _needs(self, trial: PlannedTrial) -> tuple[Need, ...]:
        """What a trial does, its training first."""
        runs = self._kinds.runs(trial.model, cells_of(trial))
        return runs if trial.checkpoint else (self._kinds.training(trial.model), *runs)


def as_many(share: float) -> int:
    """How many trials of a share there is room for on one GPU."""
    return int(1 / share + 1e-9)  # 1 // (1 / 5) is 4


def probe(plan: Plan, store: Store, execution: Execution) -> dict[str, str]:
    """Measures what a plan's trials take of this machine's GPU, where their share depends on it.

    Returns:
        Why a kind of work could not be measured, by kind in words.
    """
    if not execution.gpu:
        return {}
    wanted = Shares(plan.resources.gpu).examples(plan.trials)
    return {told(kind): why for kind, why in measured(wanted, store, execution)[1].items()}


def _size(dataset: Dataset) -> int:
    """Bytes of all of a data set."""
    return sum(dataset.sizes.values()) * (math.prod(dataset.shape) + LABEL)
