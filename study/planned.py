"""What a study wants, as data: trials named by their content, and points beside its grids."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from study.files import StudyFile
from study.loader import is_number
from study.overlay import Place
from study.protocol import Protocol
from study.space import searched
from study.spec import Resources, Study
from trainables import names
from trainables.config import Cell, ModelConfig, TrialConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One model's life, and the names that the study gives to it.

    Attributes:
        model: what is trained, or given.
        checkpoint: where this machine has the weights of a model that is given.
        labels: all methods of the study whose point this is (identical points train once),
            each with its label, the method and its swept parameters: `isce s=1 m=0.1`.
        axes: by method, its swept parameters by dotted key.
        seeds: number of seeds of its arm.
        cells: the attacks measured, by metric name; names differ where ids may agree.
        diagnostics: what else is looked at, by the study's label.
        candidate: whether a search tries it: on validation images alone.
        refined: whether it lies beside its methods' grids.
        watch: what its training may be given up by, after each epoch.
    """

    model: ModelConfig
    labels: dict[str, str]
    axes: dict[str, dict[str, Any]]
    checkpoint: Path | None = None
    seeds: int = 1
    cells: dict[str, Cell] = field(default_factory=dict)
    diagnostics: dict[str, Cell] = field(default_factory=dict)
    candidate: bool = False
    refined: bool = False
    watch: Cell | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods whose point this is."""
        return tuple(self.labels)

    @property
    def point(self) -> dict[str, Any]:
        """Where it lies on the axes of any of its methods."""
        return joined(self.axes.values())

    @property
    def label(self) -> str:
        """The first method's label."""
        return next(iter(self.labels.values()))

    @cached_property
    def id(self) -> str:
        """The trial's id, which is the model's."""
        return self.model.id

    @property
    def result_ids(self) -> set[str]:
        """Ids of all results that it should have: of cells and diagnostics."""
        return {*self.cell_ids.values(), *self.diagnostic_ids.values()}

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
        return str(Place(self.model.dataset.name, self.model.backbone.name))

    @property
    def name(self) -> str:
        """The run's name: label, place and seed, or the checkpoint's file."""
        given = self.model.checkpoint
        return f"{self.label} · {self.place} · {given.file if given else f'seed {self.model.seed}'}"

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
        return TrialConfig(model=self.model, cells=tuple(unique.values()), watch=self.watch)

    def params(self) -> dict[str, str]:
        """Flat parameters as MLflow shows them."""
        flat: dict[str, Any] = {
            "method": self.methods[0],
            "dataset": self.model.dataset.name,
            "backbone": self.model.backbone.name,
            "seed": self.model.seed,
        }
        for kind in self.model.parts:
            component = getattr(self.model, kind)
            if kind not in flat:
                flat[kind] = component.name
            flat |= _flat(kind, component.parameters())
        given = self.model.checkpoint
        flat |= (
            _flat("checkpoint", given.parameters())
            if given
            else _flat("training", self.model.training.parameters())
        )
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
class Extra:
    """A point of a method beside those that its grid has: found by a search or a refinement.

    Attributes:
        method: whose it is.
        place: where, see `Place`.
        axes: its value along each axis of the method, by dotted key.
        seeds: which seeds it is trained with; the method's by default.
        candidate: whether a search only tries it.
    """

    method: str
    place: str
    axes: Mapping[str, Any]
    seeds: tuple[int, ...] = ()
    candidate: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a study wants.

    Attributes:
        file: the study file it was made from.
        placed: its checked content in each of its places; of a union of all its parts.
        trials: one a model, in the file's order.
        candidates: what searches have tried so far and is no trial, see `study.search`.
        protocols: what is measured, by the place of the trials.
        chosen: arms that validation chose from their grids, see `study.choice`.
        extras: points beside the grids.
        searches: how its searches stand, as plain data for the analysis.
    """

    file: StudyFile
    placed: tuple[tuple[Place, Study], ...]
    trials: tuple[PlannedTrial, ...]
    candidates: tuple[PlannedTrial, ...] = ()
    protocols: Mapping[str, Protocol]
    chosen: frozenset[str] = frozenset()
    extras: tuple[Extra, ...] = ()
    searches: tuple[dict[str, Any], ...] = ()

    @property
    def studies(self) -> tuple[Study, ...]:
        """Its content, a study a place."""
        return tuple(study for _, study in self.placed)

    @property
    def name(self) -> str:
        """The study's name, its experiment's and its lock's."""
        return self.file.name

    @cached_property
    def by_id(self) -> dict[str, PlannedTrial]:
        """Trials by id."""
        return {trial.id: trial for trial in self.trials}

    def protocol(self, trial: PlannedTrial) -> Protocol:
        """How a trial's model is evaluated."""
        return self.protocols[trial.place]

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The rows of all its studies."""
        return tuple(unique(name for study in self.studies for name in study.methods))

    @property
    def baseline(self) -> str | None:
        """The method that others are compared with: the first that a study names."""
        named = (study.compare.baseline for study in self.studies)
        return next(filter(None, named), None)

    @property
    def controls(self) -> dict[str, list[str]]:
        """For a method, the arms that share all of it but its claim."""
        controls: dict[str, list[str]] = {}
        for study in self.studies:
            for name, arms in study.compare.controls.items():
                controls[name] = unique([*controls.get(name, []), *arms])
        return controls

    @property
    def choose(self) -> list[str]:
        """The methods whose hyper-parameters validation chooses."""
        chosen = (study.choose.methods if study.choose else [] for study in self.studies)
        found = (searched(study) for study in self.studies)
        return unique(itertools.chain(*chosen, *found))

    @property
    def plugins(self) -> tuple[str, ...]:
        """Packages of the user's own components."""
        return tuple(unique(name for study in self.studies for name in study.plugins))

    @property
    def resources(self) -> Resources:
        """What a trial takes: the first study's."""
        return self.studies[0].resources if self.studies else Resources()

    @property
    def is_audited(self) -> bool:
        """Whether anything says how far to believe a headline."""
        return any(study.audit is not None for study in self.studies)


def unique(items: Iterable[str]) -> list[str]:
    """Each once, in the order in which they are first seen."""
    return list(dict.fromkeys(items))


def joined(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """All of some mappings in one; of equal keys the last one's value."""
    return {key: value for part in parts for key, value in part.items()}


def swept(trials: Iterable[PlannedTrial], method: str) -> dict[str, list[Any]]:
    """The numbers along which a method is swept, by dotted key, the smallest first."""
    axes: dict[str, set[Any]] = {}
    for trial in trials:
        if method in trial.methods:
            for key, value in numeric(trial.axes[method]).items():
                axes.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in axes.items()}


def numeric(axes: Mapping[str, Any]) -> dict[str, float]:
    """The axes that are numbers: what can be drawn along, and filtered by >=."""
    return {key: value for key, value in axes.items() if is_number(value)}
