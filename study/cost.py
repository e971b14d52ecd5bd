"""What a study costs: how much work of each kind is left, and what that takes. Pure arithmetic.

A *kind* is work that takes as long a unit whatever the numbers in it are: learning rates, eps,
s and m change what is computed, not how much. So the 10,000 points of a grid are one kind of
training and a handful of kinds of attack runs. A unit is an image of an epoch, or of an attack.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from study.planned import Plan, PlannedTrial
from trainables import names
from trainables.attacks.base import Stepwise
from trainables.config import COMPONENTS, Cell, ModelConfig, canonical
from trainables.probe import epoch_images
from trainables.registry import Component

HOUR = 3600.0


@dataclass(frozen=True)
class Need:
    """Work that a trial has still to do: its training, or one run of attacks.

    Attributes:
        kind: what takes as long a unit.
        units: images of all epochs, or images attacked.
        cells: how many cells the run answers; 0 for a training.
    """

    kind: str
    units: float
    cells: int = 0


@dataclass(frozen=True)
class Rate:
    """What a unit of one kind takes.

    Attributes:
        seconds: of a unit, a mean.
        spread: standard deviation of it from trial to trial; 0 where one was measured.
        runs: trainings, or runs of attacks, that it is from; 0 for a probe, for attacks an
            upper bound.
    """

    seconds: float
    spread: float = 0.0
    runs: int = 0


@dataclass(frozen=True)
class Tally:
    """Sums from which a `Rate` is made, over finished trials.

    Attributes:
        runs: trainings, or runs of attacks.
        units: done by them.
        seconds: that they took.
        squares: sum of units times the squared seconds of a unit.
    """

    runs: int = 0
    units: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0

    def with_run(self, units: float, seconds: float) -> Tally:
        """One more."""
        return self + Tally(1, units, seconds, seconds**2 / units)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.runs + other.runs,
            self.units + other.units,
            self.seconds + other.seconds,
            self.squares + other.squares,
        )

    @property
    def rate(self) -> Rate:
        """The mean over units, and its spread."""
        mean = self.seconds / self.units
        variance = max(self.squares / self.units - mean**2, 0.0)
        return Rate(mean, math.sqrt(variance), self.runs)


class Kinds:
    """Names kinds and sums up what trials need; what trials share is looked at once.

    Memos go by identity: the plan, which holds the trials, has to outlive it.
    """

    def __init__(self) -> None:
        self._shapes: dict[int, Any] = {}
        self._models: dict[tuple[int, ...], tuple[str, Need]] = {}
        self._runs: dict[tuple[Any, ...], tuple[Need, ...]] = {}

    def training(self, model: ModelConfig) -> Need:
        """A model's training."""
        return self._model(model)[1]

    def runs(self, model: ModelConfig, cells: Sequence[Cell]) -> tuple[Need, ...]:
        """The runs that answer cells of a model, in the order in which they are run."""
        kind = self._model(model)[0]
        key = (kind, *map(id, cells))
        if key not in self._runs:
            self._runs[key] = tuple(_run(kind, group) for group in grouped(cells))
        return self._runs[key]

    def _model(self, model: ModelConfig) -> tuple[str, Need]:
        parts = tuple(getattr(model, name) for name in (*COMPONENTS, "training"))
        key = tuple(map(id, parts))
        if key not in self._models:
            shapes = {kind: self._shape(getattr(model, kind)) for kind in COMPONENTS}
            training, sizes = model.training, model.dataset.sizes
            units = epoch_images(sizes["train"], sizes["validation"]) * training.epochs
            step = {
                "batch_size": training.batch_size,
                "augment": training.augment,
                "precision": training.precision,
            }
            need = Need(canonical({"train": step, **shapes}), units)
            self._models[key] = canonical(shapes), need
        return self._models[key]

    def _shape(self, component: Component) -> Any:
        if id(component) not in self._shapes:
            self._shapes[id(component)] = shape_of(component.spec())
        return self._shapes[id(component)]


def shape_of(spec: Any, without: Collection[Any] = ()) -> Any:
    """A component's plain data less what does not change how much is computed.

    Args:
        spec: as `Component.spec` gives it; floats and the size of a data set are left out.
        without: other values to leave out, such as the ids of models.
    """
    if isinstance(spec, Mapping):
        return {
            key: shape_of(value, without)
            for key, value in spec.items()
            if key != "subset" and not isinstance(value, float) and value not in without
        }
    return [shape_of(item, without) for item in spec] if isinstance(spec, list) else spec


def grouped(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells, equal ones once, by the run that answers them."""
    groups: dict[Any, list[Cell]] = {}
    for cell in dict.fromkeys(cells):
        groups.setdefault(cell.group, []).append(cell)
    return list(groups.values())


def longest(group: Sequence[Cell]) -> Cell:
    """The cell of a run that takes all of it."""
    return max(group, key=lambda cell: _steps(cell.probe))


def _steps(probe: Component) -> int:
    inner = getattr(probe, "using", probe)
    return inner.steps if isinstance(inner, Stepwise) else 0


def _run(model: str, group: Sequence[Cell]) -> Need:
    cell = longest(group)
    shape = shape_of(cell.probe.spec(), without=cell.sources)
    return Need(canonical({cell.probe.kind: shape, "of": model}), float(cell.n), len(group))


@dataclass
class Workload:
    """What a plan needs beyond what a store holds.

    Attributes:
        models, trained: trials, and those whose model is there.
        cells, measured: of all trials, and those whose result is there.
        runs: of attacks and diagnostics that are left.
        whole: ids of the trials that have all results.
        trained_ids: ids of the trained models.
        trials: how many trials need the same work, by that work.
        examples: a trial and the cell that takes a run's time, None for training, by kind.
    """

    models: int = 0
    trained: int = 0
    cells: int = 0
    measured: int = 0
    runs: int = 0
    whole: set[str] = field(default_factory=set)
    trained_ids: set[str] = field(default_factory=set)
    trials: Counter[tuple[Need, ...]] = field(default_factory=Counter)
    examples: dict[str, tuple[PlannedTrial, Cell | None]] = field(default_factory=dict)

    @property
    def units(self) -> dict[str, float]:
        """The units that are left of each kind."""
        found: dict[str, float] = {}
        for needs, count in self.trials.items():
            for need in needs:
                found[need.kind] = found.get(need.kind, 0.0) + count * need.units
        return found


def workload(
    plan: Plan,
    models: Collection[str],
    outcomes: Mapping[str, Collection[str]],
    ahead: Iterable[tuple[PlannedTrial, int]] = (),
) -> Workload:
    """What is left of a plan.

    Args:
        plan: what is wanted.
        models: ids of the trained models.
        outcomes: ids of the measured cells, by model.
        ahead: examples of what is not planned yet, and how many there will be.
    """
    kinds, found = Kinds(), Workload()
    sizes: dict[tuple[int, ...], int] = {}
    for trial in plan.trials:
        cells = cells_of(trial)
        key = tuple(map(id, cells))
        if key not in sizes:
            sizes[key] = len(dict.fromkeys(cells))
        measured = outcomes.get(trial.id, ())
        left = [cell for cell in cells if cell.id(trial.id) not in measured] if measured else cells
        trained = trial.id in models or trial.checkpoint is not None  # nothing to train
        found.models += 1
        found.trained += trained
        found.cells += sizes[key]
        found.measured += sizes[key] - (len(dict.fromkeys(left)) if measured else sizes[key])
        if trained:
            found.trained_ids.add(trial.id)
        if not left:
            found.whole.add(trial.id)
            continue
        runs = kinds.runs(trial.model, left)
        needs = runs if trained else (kinds.training(trial.model), *runs)
        found.runs += len(runs)
        if needs not in found.trials:
            add_examples(found.examples, trial, left, needs)
        found.trials[needs] += 1
    pending = list(ahead)  # kept, for memos go by identity
    for trial, count in pending:
        cells = cells_of(trial)
        runs = kinds.runs(trial.model, cells)
        needs = (kinds.training(trial.model), *runs)
        found.runs += count * len(runs)
        add_examples(found.examples, trial, cells, needs)
        found.trials[needs] += count
    return found


def add_examples(
    examples: dict[str, tuple[PlannedTrial, Cell | None]],
    trial: PlannedTrial,
    left: Sequence[Cell],
    needs: Sequence[Need],
) -> None:
    """Adds, of each kind that is new, a trial and the cell that takes a run's time, or None.

    Args:
        examples: added to.
        trial: which needs it.
        left: its cells.
        needs: its work, with its training or without.
    """
    cells: list[Cell | None] = [longest(group) for group in grouped(left)]
    if len(cells) < len(needs):
        cells.insert(0, None)
    for need, cell in zip(needs, cells, strict=True):
        examples.setdefault(need.kind, (trial, cell))


def cells_of(trial: PlannedTrial) -> list[Cell]:
    """All that is measured of a trial."""
    return [*trial.cells.values(), *trial.diagnostics.values()]


def taken(
    trial: PlannedTrial,
    record: Mapping[str, Any],
    kinds: Kinds,
    *,
    trained: bool,
    measured: Collection[str],
) -> Iterator[tuple[Need, float]]:
    """What a trial did in this run and the seconds of each, as its record tells.

    Args:
        trial: which has finished.
        record: see `trainables.trial.record_of`.
        kinds: names them.
        trained: whether its model was there before.
        measured: ids of the cells that were there before.
    """
    if not trained and record["history"]:
        yield kinds.training(trial.model), sum(epoch["seconds"] for epoch in record["history"])
    left = [cell for cell in cells_of(trial) if cell.id(trial.id) not in measured]
    for group, need in zip(grouped(left), kinds.runs(trial.model, left), strict=True):
        seconds = [record["cell_seconds"].get(cell.id(trial.id)) for cell in group]
        if None not in seconds:
            yield need, sum(seconds)


@dataclass(frozen=True)
class Estimate:
    """What work takes.

    Attributes:
        seconds: of trials, one after another; a lower bound where anything is unmeasured.
        low, high: one standard deviation between trials either way, in all kinds at once.
        longest: seconds of the longest trial.
        unmeasured: kinds of which nothing is known.
        probed: kinds of which nothing but a probe is known.
        kinds: how many there are.
    """

    seconds: float
    low: float
    high: float
    longest: float
    unmeasured: tuple[str, ...]
    probed: int
    kinds: int

    def wall(self, slots: int) -> float:
        """Seconds by the clock where so many trials run at a time."""
        return max(self.seconds / slots, self.longest)

    def price(self, slots: int, price: float) -> float:
        """Of the work on machines that run `slots` trials at a time and cost `price` an hour."""
        return self.seconds / HOUR / slots * price


def estimate(work: Workload, rates: Mapping[str, Rate]) -> Estimate:
    """What a workload takes by rates of its kinds, as far as they are known."""
    units = work.units
    known = {kind: rates[kind] for kind in units if kind in rates}
    seconds = sum(rate.seconds * units[kind] for kind, rate in known.items())
    spread = sum(rate.spread * units[kind] for kind, rate in known.items())
    each = (
        sum(known[need.kind].seconds * need.units for need in needs if need.kind in known)
        for needs in work.trials
    )
    return Estimate(
        seconds=seconds,
        low=max(seconds - spread, 0.0),
        high=seconds + spread,
        longest=max(each, default=0.0),
        unmeasured=tuple(kind for kind in units if kind not in rates),
        probed=sum(not rate.runs for rate in known.values()),
        kinds=len(units),
    )


@dataclass(frozen=True)
class Account:
    """What a run took beside what had been expected of the trials that it finished.

    Attributes:
        trials: that it finished.
        seconds: they took, one after another.
        estimated: seconds expected of them when the run began; None where a kind of theirs had
            not been measured.
        wall: seconds by the clock, from the run's begin to its end.
        time: when it ended, seconds since 1970.
    """

    trials: int
    seconds: float
    estimated: float | None
    wall: float
    time: float

    def as_json(self) -> dict[str, Any]:
        """Plain data, which `Account(**data)` reverses."""
        return asdict(self)

    def __add__(self, later: Account) -> Account:
        """Both of two parts of one run."""
        known = self.estimated is not None and later.estimated is not None
        return Account(
            trials=self.trials + later.trials,
            seconds=self.seconds + later.seconds,
            estimated=(self.estimated or 0) + (later.estimated or 0) if known else None,
            wall=self.wall + later.wall,
            time=later.time,
        )

    def __str__(self) -> str:
        told = f"took {duration(self.seconds)} of work"
        if self.estimated:
            times = names.number(round(self.seconds / self.estimated, 2))
            told += f", estimated {duration(self.estimated)} (x{times})"
        return f"{told}, {duration(self.wall)} by the clock"


def together(first: Account | None, second: Account | None) -> Account | None:
    """What two parts of a run took, either of which may have finished nothing."""
    return first + second if first and second else first or second


def duration(seconds: float) -> str:
    """In the largest unit of which there is one at least."""
    for unit, size in (("d", 24 * HOUR), ("h", HOUR), ("min", 60.0)):
        if seconds >= 0.95 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else f"{seconds:.1f} s"


def told(kind: str) -> str:
    """A kind in a few words."""
    shape = json.loads(kind)
    model = json.loads(shape["of"]) if "of" in shape else shape
    what = "training" if "train" in shape else (shape.get("attack") or shape["diagnostic"])["name"]
    parts = [model["loss"]["name"]]
    parts += [model[part]["name"] for part, usual in _USUAL.items() if model[part]["name"] != usual]
    return f"{what} of {' '.join(parts)} on {model['backbone']['name']}/{model['dataset']['name']}"


_USUAL = {"regime": "standard", "transform": "none"}
