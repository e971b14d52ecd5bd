"""From a study to its trials: models to train, cells to measure, each named by its content."""

from __future__ import annotations

import itertools
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from study.axes import Point
from study.check import check, headline_attacks, surface_of
from study.files import StudyFile
from study.settle import settle, settle_labelled, settle_training
from study.spec import Method, Study
from trainables import names
from trainables.attacks.base import Attack, Columns
from trainables.attacks.clean import Clean
from trainables.classifier import refusal
from trainables.config import COMPONENTS, Cell, ModelConfig, SplitName, TrialConfig
from trainables.diagnostics.base import Diagnostic
from trainables.errors import InvalidStudy, Mistake

LONGEST_NAME = 250 - len(names.LINF_MEDIAN)  # of a metric: MLflow's limit, less our suffixes


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
    cells: dict[str, Cell]
    diagnostics: dict[str, Cell]

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
        columns: how each cell's attack is listed, by metric name; None for clean cells.
        labels: the attack's label in the study, by metric name.
        headline: metric names of the headline's cells, by split.
    """

    file: StudyFile
    study: Study
    trials: tuple[PlannedTrial, ...]
    columns: dict[str, Columns | None]
    labels: dict[str, str]
    headline: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """The study's name, its experiment's and its lock's."""
        return self.study.study

    @cached_property
    def by_id(self) -> dict[str, PlannedTrial]:
        """Trials by id."""
        return {trial.id: trial for trial in self.trials}


@dataclass(frozen=True, kw_only=True)
class _NamedCell:
    name: str
    label: str
    attack: Attack
    split: SplitName
    headline: bool


def make_plan(file: StudyFile) -> Plan:
    """Plans a study file.

    Raises:
        InvalidStudy: all mistakes at once; see `study.check.check`.
    """
    study = check(file)
    mistakes: list[Mistake] = []
    cells = list(_cells(study, mistakes))
    diagnostics = dict(_diagnostics(study, mistakes))
    trials = list(_trials(study, cells, diagnostics, mistakes))
    mistakes += _twins(trials)
    if mistakes:
        raise InvalidStudy(file.source, list(dict.fromkeys(mistakes)))
    return Plan(
        file=file,
        study=study,
        trials=tuple(_merge(trials)),
        columns={cell.name: cell.attack.columns() for cell in cells},
        labels={cell.name: cell.label for cell in cells},
        headline={
            split: tuple(cell.name for cell in cells if cell.headline and cell.split == split)
            for split in (names.TEST, names.VALIDATION)
        },
    )


def _cells(study: Study, mistakes: list[Mistake]) -> Iterator[_NamedCell]:
    """Every attack on test images; clean and headline on validation images too."""
    named = [
        (label, cast(Attack, point.value))
        for label, node in study.attacks.items()
        for point in settle_labelled("attack", label, node, mistakes)
    ]
    settings = [attack for label, attack in named if label == study.headline["attack"]]
    headline = headline_attacks(study.headline, settings)
    seen: set[str] = set()
    splits: tuple[SplitName, ...] = ("test", "validation")
    for split in splits:
        clean = names.clean_name(split)
        seen.add(clean)
        yield _NamedCell(name=clean, label="clean", attack=Clean(), split=split, headline=False)
        for label, attack in named:
            leads = attack in headline and label == study.headline["attack"]
            if split == names.VALIDATION and not leads:
                continue
            name = _cell_name(split, label, attack)
            if name in seen:
                where = f"attacks.{label}"
                mistakes.append(Mistake(where, f"two of its cells would both be named {name}"))
            if len(name) > LONGEST_NAME:
                mistakes.append(Mistake(f"attacks.{label}", f"too long for a metric: {name}"))
            seen.add(name)
            yield _NamedCell(name=name, label=label, attack=attack, split=split, headline=leads)


def _diagnostics(study: Study, mistakes: list[Mistake]) -> Iterator[tuple[str, Diagnostic]]:
    """Each label's one diagnostic."""
    for label, node in study.diagnostics.items():
        points = settle_labelled("diagnostic", label, node, mistakes)
        if len(points) > 1:
            what = f"expected one setting, found {len(points)}: a diagnostic has no axes"
            mistakes.append(Mistake(f"diagnostics.{label}", what))
        yield from ((label, cast(Diagnostic, point.value)) for point in points[:1])


def _cell_name(split: str, label: str, attack: Attack) -> str:
    columns = attack.columns()
    if columns is None:
        return f"{names.CELL}{split}/{label}"
    listed = {key: value for key, value in asdict(columns).items() if key != "norm"}
    return names.cell_name(split=split, attack=label, **listed)


def _trials(
    study: Study,
    cells: list[_NamedCell],
    diagnostics: dict[str, Diagnostic],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
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
                    cells=_cells_of(study, cells, parts),
                    diagnostics=_diagnostics_of(study, cells, diagnostics, parts),
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


def _cells_of(study: Study, cells: list[_NamedCell], parts: Mapping[str, Any]) -> dict[str, Cell]:
    sizes = {"test": study.evaluate.test, "validation": study.evaluate.validation}
    return {
        cell.name: Cell(
            probe=cell.attack.for_loss(parts["loss"]), split=cell.split, n=sizes[cell.split]
        )
        for cell in cells
    }


def _diagnostics_of(
    study: Study,
    cells: list[_NamedCell],
    diagnostics: Mapping[str, Diagnostic],
    parts: Mapping[str, Any],
) -> dict[str, Cell]:
    if not diagnostics:
        return {}
    leading = [cell.attack for cell in cells if cell.headline]
    # Cross entropy may be blind (MMC's is); a margin never is.
    sharp = [attack for attack in leading if surface_of(attack).startswith("margin")]
    headline = (sharp or leading)[0]
    return {
        label: Cell(
            probe=diagnostic.filled(parts["loss"], headline), split="test", n=study.evaluate.test
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


def describe(plan: Plan, command: str) -> dict[str, Any]:
    """The plan as plain data: what analysis reads beside the tracked runs."""
    study = plan.study
    methods = list(study.methods)
    return {
        "study": plan.name,
        "question": study.question,
        "command": command,
        "baseline": study.compare.baseline,
        "controls": study.compare.controls,
        "choose": study.choose.model_dump() if study.choose else None,
        "headline": {
            **{split: list(cells) for split, cells in plan.headline.items()},
            "label": _headline_label(plan),
        },
        "methods": methods,
        "axes": {name: _axes(plan.trials, name) for name in methods},
        "seeds": {name: _seeds(plan.trials, name) for name in methods},
        "cells": {name: _describe_cell(plan, name) for name in plan.columns},
        "diagnostics": {
            label: cell.probe.name for label, cell in plan.trials[0].diagnostics.items()
        },
        "trials": [_describe_trial(trial) for trial in plan.trials],
        "provenance": _provenance(plan),
    }


def _headline_label(plan: Plan) -> str:
    columns = plan.columns[plan.headline[names.TEST][0]]
    assert columns is not None
    direction = "targeted" if columns.targeted else "untargeted"
    eps = f"{columns.budget} eps {names.number(columns.eps)}"
    return f"{plan.study.headline['attack']} {direction}, {eps}, {columns.steps} steps"


def _axes(trials: Iterable[PlannedTrial], method: str) -> dict[str, list[Any]]:
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


def _seeds(trials: Iterable[PlannedTrial], method: str) -> list[int]:
    return sorted({trial.model.seed for trial in trials if method in trial.methods})


def _describe_cell(plan: Plan, name: str) -> dict[str, Any]:
    cell, columns = plan.trials[0].cells[name], plan.columns[name]
    described = {"split": cell.split, "attack": plan.labels[name], "n": cell.n}
    if columns is None:
        return described
    return {**described, "algorithm": cell.probe.name, **asdict(columns)}


def _describe_trial(trial: PlannedTrial) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "methods": list(trial.methods),
        "arm": trial.arm,
        "labels": trial.labels,
        "name": trial.name,
        "seed": trial.model.seed,
        "dataset": trial.model.dataset.name,
        "backbone": trial.model.backbone.name,
        "axes": numeric(trial.axes),
        "params": trial.params(),
        "evidence": trial.evidence,
    }


_REPORTED = ("torch", "ray", "mlflow", "numpy", "robust-loss-study")


def _provenance(plan: Plan) -> dict[str, Any]:
    datasets = {trial.model.dataset.name: trial.model.dataset.checksum for trial in plan.trials}
    return {
        "versions": {name: metadata.version(name) for name in _REPORTED},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_revision(),
        "data": datasets,
    }


def git_revision() -> str:
    """The commit of this package's source tree, `unknown` for an installed one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
