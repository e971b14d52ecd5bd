"""From a study to its trials: models to train, cells to measure, each named by its content."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from study.axes import Point
from study.cells import NamedCell, named_cells
from study.check import check, surface_of
from study.files import StudyFile
from study.settle import settle, settle_labelled, settle_training
from study.spec import Method, Study
from trainables import names
from trainables.attacks.base import Attack, Columns, SourceModel
from trainables.classifier import refusal
from trainables.config import COMPONENTS, Cell, ModelConfig, TrialConfig, canonical
from trainables.diagnostics.base import Diagnostic
from trainables.errors import InvalidStudy, Mistake


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One model's life, and the names that the study gives to it.

    Attributes:
        model: what is trained.
        labels: all methods of the study whose point this is (identical points train once),
            each with its label, the method and its swept parameters: `isce s=1 m=0.1`.
        axes: swept parameters by dotted key.
        seeds: number of seeds of its arm.
        cells: the attacks measured, by metric name; names differ where ids may agree.
        diagnostics: what else is looked at, by the study's label.
    """

    model: ModelConfig
    labels: dict[str, str]
    axes: dict[str, Any]
    seeds: int
    cells: dict[str, Cell] = field(default_factory=dict)
    diagnostics: dict[str, Cell] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods whose point this is."""
        return tuple(self.labels)

    @property
    def label(self) -> str:
        """The first method's label."""
        return next(iter(self.labels.values()))

    @cached_property
    def id(self) -> str:
        """The trial's id, which is the model's."""
        return self.model.id

    @cached_property
    def cell_ids(self) -> dict[str, str]:
        """Cell ids by metric name."""
        return {name: cell.id(self.id) for name, cell in self.cells.items()}

    @cached_property
    def diagnostic_ids(self) -> dict[str, str]:
        """Ids of the diagnostics' cells by label."""
        return {label: cell.id(self.id) for label, cell in self.diagnostics.items()}

    @property
    def place(self) -> str:
        """Backbone and data set."""
        return f"{self.model.backbone.name}/{self.model.dataset.name}"

    @property
    def name(self) -> str:
        """The run's name: label, place and seed."""
        return f"{self.label} · {self.place} · seed {self.model.seed}"

    @property
    def arm(self) -> str:
        """Names the configuration less the seed; what runs are grouped by."""
        return f"{self.label} · {self.place} · {self.model.arm_id[:8]}"

    @property
    def sources(self) -> set[str]:
        """Ids of the other models that its cells need."""
        return {source for cell in self.cells.values() for source in cell.sources}

    @property
    def evidence(self) -> str:
        """How many seeds stand behind this arm."""
        return names.EXPLORATORY if self.seeds < 2 else f"{self.seeds} seeds"

    def job(self) -> TrialConfig:
        """What a worker is sent: equal cells once."""
        unique = {self.cell_ids[name]: cell for name, cell in self.cells.items()}
        unique |= {self.diagnostic_ids[name]: cell for name, cell in self.diagnostics.items()}
        return TrialConfig(model=self.model, cells=tuple(unique.values()))

    def params(self) -> dict[str, str]:
        """Flat parameters as MLflow shows them."""
        flat: dict[str, Any] = {
            "method": self.methods[0],
            "dataset": self.model.dataset.name,
            "backbone": self.model.backbone.name,
            "seed": self.model.seed,
        }
        for kind in COMPONENTS:
            component = getattr(self.model, kind)
            if kind not in flat:
                flat[kind] = component.name
            flat |= _flat(kind, component.parameters())
        flat |= _flat("training", self.model.training.parameters())
        return {key: names.text(value) for key, value in flat.items()}


def _flat(prefix: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by dotted key; a nested component by its name, its parameters below it."""
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        if isinstance(value, dict):
            inner = dict(value)
            if "name" in inner:
                flat[f"{prefix}.{key}"] = inner.pop("name")
            flat |= _flat(f"{prefix}.{key}", inner)
        elif value is not None:
            flat[f"{prefix}.{key}"] = value
    return flat


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a study wants.

    Attributes:
        file: the study file it was made from.
        study: its checked content.
        trials: one a model, in the file's order.
        cells: what is measured, in the order of the file, the audit last.
        chosen: arms that validation chose from their grids, see `study.choice`.
    """

    file: StudyFile
    study: Study
    trials: tuple[PlannedTrial, ...]
    cells: tuple[NamedCell, ...]
    chosen: frozenset[str] = frozenset()

    @cached_property
    def columns(self) -> dict[str, Columns | None]:
        """How each cell's attack is listed, by metric name; None for clean cells."""
        return {cell.name: cell.columns for cell in self.cells}

    @cached_property
    def labels(self) -> dict[str, str]:
        """The attack's label in the study, by metric name."""
        return {cell.name: cell.label for cell in self.cells}

    @cached_property
    def headline(self) -> dict[str, tuple[str, ...]]:
        """Metric names of the headline's cells, by split."""
        return {
            split: tuple(cell.name for cell in self.cells if cell.headline and cell.split == split)
            for split in (names.TEST, names.VALIDATION)
        }

    @property
    def name(self) -> str:
        """The study's name, its experiment's and its lock's."""
        return self.study.study

    @cached_property
    def by_id(self) -> dict[str, PlannedTrial]:
        """Trials by id."""
        return {trial.id: trial for trial in self.trials}


def make_plan(file: StudyFile, chosen: frozenset[str] = frozenset()) -> Plan:
    """Plans a study file.

    Args:
        file: what is wanted.
        chosen: ids of arms that are audited as a whole wherever they lie in their grid.

    Raises:
        InvalidStudy: all mistakes at once; see `study.check.check`.
    """
    study = check(file)
    mistakes: list[Mistake] = []
    cells = named_cells(study, mistakes)
    diagnostics = dict(_diagnostics(study, mistakes))
    trials = list(_trials(study, mistakes))
    mistakes += _twins(trials)
    merged = list(_merge(trials))
    measured = tuple(_measured(study, cells, diagnostics, merged, chosen, mistakes))
    if mistakes:
        raise InvalidStudy(file.source, list(dict.fromkeys(mistakes)))
    return Plan(file=file, study=study, trials=measured, cells=tuple(cells), chosen=chosen)


def _diagnostics(study: Study, mistakes: list[Mistake]) -> Iterator[tuple[str, Diagnostic]]:
    """Each label's one diagnostic."""
    for label, node in study.diagnostics.items():
        points = settle_labelled("diagnostic", label, node, mistakes)
        if len(points) > 1:
            what = f"expected one setting, found {len(points)}: a diagnostic has no axes"
            mistakes.append(Mistake(f"diagnostics.{label}", what))
        yield from ((label, cast(Diagnostic, point.value)) for point in points[:1])


def _trials(study: Study, mistakes: list[Mistake]) -> Iterator[PlannedTrial]:
    """One a method, point and seed, with nothing to measure yet."""
    for name, method in study.methods.items():
        for points in _points(name, method, study, mistakes):
            axes = {key: value for point in points for key, value in point.axes.items()}
            parts = dict(zip((*COMPONENTS, "training"), (p.value for p in points), strict=True))
            made_of = ("dataset", "backbone", "loss", "transform")
            reason = refusal(**{part: parts[part] for part in made_of})
            if reason is not None:
                mistakes.append(Mistake(f"methods.{name}", reason))
                continue
            seeds = method.seeds or study.seeds
            for place in ("dataset", "backbone"):  # stands in the run's name already
                axes.pop(place, None)
            for seed in dict.fromkeys(seeds):
                yield PlannedTrial(
                    model=ModelConfig(**parts, seed=seed),
                    labels={name: " ".join([name, *map(_assignment, axes.items())])},
                    axes=axes,
                    seeds=len(set(seeds)),
                )


def _points(
    name: str, method: Method, study: Study, mistakes: list[Mistake]
) -> Iterator[tuple[Point, ...]]:
    """All combinations of a method's axes, in the order of COMPONENTS and training."""
    where = f"methods.{name}"
    data = study.data if method.data is None else method.data
    backbone = study.backbone if method.backbone is None else method.backbone
    training = {**study.training, **method.training}
    return itertools.product(
        settle("dataset", data, "dataset", "data", mistakes),
        settle("backbone", backbone, "backbone", "backbone", mistakes),
        settle("loss", method.loss, "loss", f"{where}.loss", mistakes),
        settle("regime", method.regime, "regime", f"{where}.regime", mistakes),
        settle("transform", method.transform, "transform", f"{where}.transform", mistakes),
        settle_training(training, f"{where}.training", mistakes),
    )


def _measured(
    study: Study,
    cells: Sequence[NamedCell],
    diagnostics: Mapping[str, Diagnostic],
    trials: Sequence[PlannedTrial],
    chosen: frozenset[str],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
    """The trials with what is to be measured of each."""
    leading = [cell.attack for cell in cells if cell.headline]
    axes = {name: swept(trials, name) for name in study.methods}
    sources = _Sources(trials, mistakes)
    for trial in trials:
        thorough = trial.model.arm_id in chosen or _stands_out(trial, axes)
        yield replace(
            trial,
            cells={
                cell.name: Cell(probe=attack, split=cell.split, n=_size(study, trial, cell))
                for cell, attack in _applying(trial, cells, sources, thorough=thorough)
            },
            diagnostics=_diagnostics_of(study, trial, leading, diagnostics),
        )


def _applying(
    trial: PlannedTrial, cells: Sequence[NamedCell], sources: _Sources, *, thorough: bool
) -> Iterator[tuple[NamedCell, Attack]]:
    """The cells that a trial has, each with its attack in the form that suits the model."""
    loss, stochastic = trial.model.loss, trial.model.transform.stochastic
    for cell in cells:
        if (cell.thorough and not thorough) or (cell.draws and not stochastic):
            continue
        attack = cell.attack.aimed(lambda name, cell=cell: sources.find(trial, name, cell))  # type: ignore[misc]
        if attack is not None:
            yield cell, attack.settled(loss, stochastic=stochastic)


def _stands_out(trial: PlannedTrial, axes: Mapping[str, Mapping[str, Sequence[Any]]]) -> bool:
    """Whether it is a corner or the centre of a method's grid; always so without one."""
    return any(_is_corner_or_centre(trial.axes, axes[name]) for name in trial.methods)


def _is_corner_or_centre(point: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> bool:
    along = [(point[key], values) for key, values in axes.items() if key in point]
    corner = all(value in (values[0], values[-1]) for value, values in along)
    return corner or all(value == values[len(values) // 2] for value, values in along)


def _size(study: Study, trial: PlannedTrial, cell: NamedCell) -> int:
    """How many images: the method's own number, else the study's, and no more than the attack's."""
    own = [getattr(study.methods[name].evaluate, cell.split) for name in trial.methods]
    largest: int = max(n or getattr(study.evaluate, cell.split) for n in own)
    return min(largest, cell.n or largest)


class _Sources:
    """Finds the model on which adversarial images for another one are made."""

    def __init__(self, trials: Sequence[PlannedTrial], mistakes: list[Mistake]) -> None:
        self.trials: dict[tuple[str, str], list[PlannedTrial]] = {}
        self.mistakes = mistakes
        for trial in trials:
            for name in trial.methods:
                self.trials.setdefault((name, _setting(trial)), []).append(trial)

    def find(self, trial: PlannedTrial, name: str, cell: NamedCell) -> SourceModel | None:
        """The method's model of the same data, backbone and seed; of the next seed for itself."""
        peers = self.trials.get((name, _setting(trial)), [])
        if len({peer.model.arm_id for peer in peers}) > 1:
            where = "audit.transfer" if cell.check else f"attacks.{cell.label}.source"
            what = f"expected a method of one configuration, {name!r} is swept"
            self.mistakes.append(Mistake(where, what))
            return None
        seeds = {peer.model.seed: peer for peer in peers if peer.id != trial.id}
        later = sorted(seeds, key=lambda seed: (seed < trial.model.seed, seed))
        if not later:
            return None
        model = seeds[later[0]].model
        return SourceModel(id=model.id, loss=model.loss, stochastic=model.transform.stochastic)


def _setting(trial: PlannedTrial) -> str:
    """Data set and backbone: what source and target have in common."""
    return canonical([trial.model.dataset.identity(), trial.model.backbone.identity()])


def _diagnostics_of(
    study: Study,
    trial: PlannedTrial,
    leading: Sequence[Attack],
    diagnostics: Mapping[str, Diagnostic],
) -> dict[str, Cell]:
    if not diagnostics:
        return {}
    # Cross entropy may be blind (MMC's is); a margin never is.
    sharp = [attack for attack in leading if surface_of(attack).startswith("margin")]
    headline = (sharp or leading)[0]
    loss, stochastic = trial.model.loss, trial.model.transform.stochastic
    own = [study.methods[name].evaluate.test for name in trial.methods]
    n = max(size or study.evaluate.test for size in own)
    return {
        label: Cell(
            probe=diagnostic.filled(loss, headline, stochastic=stochastic), split="test", n=n
        )
        for label, diagnostic in diagnostics.items()
    }


def _twins(trials: Iterable[PlannedTrial]) -> Iterator[Mistake]:
    """Different configurations that would bear one name."""
    arms: dict[tuple[str, str], str] = {}
    for trial in trials:
        arm = trial.model.arm_id
        if arms.setdefault((trial.label, trial.place), arm) != arm:
            what = f"two configurations would both be called {trial.label!r} on {trial.place}"
            where = f"methods.{trial.methods[0]}"
            yield Mistake(
                where, f"{what}: make them two methods, or the parameter that differs an axis"
            )


def _merge(trials: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
    """Identical points once, under all their methods' names."""
    groups: dict[str, list[PlannedTrial]] = {}
    for trial in trials:
        groups.setdefault(trial.id, []).append(trial)
    for first, *others in groups.values():
        labels = {name: label for trial in others for name, label in trial.labels.items()}
        seeds = max(trial.seeds for trial in (first, *others))
        yield replace(first, labels={**first.labels, **labels}, seeds=seeds)


def _assignment(item: tuple[str, Any]) -> str:
    key, value = item
    return f"{key.rsplit('.', 1)[-1]}={names.text(value)}"


def swept(trials: Iterable[PlannedTrial], method: str) -> dict[str, list[Any]]:
    """The numbers along which a method is swept, by dotted key, in the file's order."""
    axes: dict[str, dict[Any, None]] = {}
    for trial in trials:
        if method in trial.methods:
            for key, value in numeric(trial.axes).items():
                axes.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in axes.items()}


def numeric(axes: Mapping[str, Any]) -> dict[str, float]:
    """The axes that are numbers: what can be drawn along, and filtered by >=."""
    return {
        key: value
        for key, value in axes.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
