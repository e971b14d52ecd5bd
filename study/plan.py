"""From a study to its trials: models to train, cells to measure, each named by its content."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.axes import Point
from study.cells import measured
from study.check import check
from study.exclude import Exclusions
from study.files import StudyFile
from study.given import given_models
from study.overlay import Place
from study.planned import Extra, Plan, PlannedTrial, joined, swept
from study.protocol import Protocol, protocol
from study.settle import settle, settle_training
from study.space import at, searched
from study.spec import Method, Study
from trainables import names
from trainables.classifier import refusal
from trainables.config import COMPONENTS, ModelConfig
from trainables.errors import InvalidStudy, Mistake
from trainables.losses.base import Unknown


def make_plan(
    file: StudyFile, chosen: frozenset[str] = frozenset(), extras: Sequence[Extra] = ()
) -> Plan:
    """Plans a study file.

    Args:
        file: what is wanted.
        chosen: ids of arms that are audited as a whole wherever they lie in their grid.
        extras: points beside the grids of its methods.

    Raises:
        InvalidStudy: all mistakes at once; see `study.check.check`.
    """
    mistakes: list[Mistake] = []
    checked = check(file)
    protocols: dict[str, Protocol] = {}
    drafted: list[PlannedTrial] = []
    for place, study in checked:
        here = protocol(study, mistakes)
        grid = list(_trials(study, place, mistakes))
        corners = {name: swept(grid, name) for name in study.methods}
        trials = [*grid, *_extra_trials(study, place, extras, grid, mistakes)]
        mistakes += _twins(trials)
        drafted += measured(study, here, list(_merge(trials)), chosen, corners, mistakes)
        if trials or searched(study):
            known = protocols.get(str(place))
            joined = known.joined(here, str(place), mistakes) if known else here
            protocols[str(place)] = joined
    mistakes += _twins(drafted)
    if mistakes:
        raise InvalidStudy(file.source, list(dict.fromkeys(mistakes)))
    merged = list(_merge(drafted))
    return Plan(
        file=file,
        placed=tuple(checked),
        trials=tuple(trial for trial in merged if not trial.candidate),
        candidates=tuple(trial for trial in merged if trial.candidate),
        protocols=protocols,
        chosen=chosen,
        extras=tuple(extras),
    )


def candidate(plan: Plan, extra: Extra) -> PlannedTrial:
    """One point that a search tries, planned alone: the rest of the plan may be large.

    Raises:
        InvalidStudy: no model can be made of it.
    """
    study = next(
        study
        for place, study in plan.placed
        if str(place) == extra.place and extra.method in study.methods
    )
    mistakes: list[Mistake] = []
    drafted = _of_extra(study, extra, mistakes)
    protocol = plan.protocols[extra.place]
    trials = list(measured(study, protocol, drafted, frozenset(), {}, mistakes))
    if mistakes:
        raise InvalidStudy(plan.file.source, mistakes)
    return trials[0]


def ends(study: Study, place: Place, method: str) -> list[ModelConfig]:
    """The models at the ends of a searched method's space; none where it is not in the place."""
    parts = _grid(method, study.methods[method], study, place, [])
    return [ModelConfig(**made, seed=0) for made, _ in parts]


def _trials(study: Study, place: Place, mistakes: list[Mistake]) -> Iterator[PlannedTrial]:
    """One a method, point and seed of a place, with nothing to measure yet.

    None of a method that is searched, whose points here are the ends of its space.
    """
    looked_for = searched(study)
    for name, method in study.methods.items():
        for parts, axes in _grid(name, method, study, place, mistakes):
            if name not in looked_for:
                yield from _seeded(name, method, study, parts, axes, mistakes)


def _extra_trials(
    study: Study,
    place: Place,
    extras: Iterable[Extra],
    grid: Sequence[PlannedTrial],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
    """The points beside the grids, in the order of the methods, as trials alike."""
    for name in study.methods:
        arms = {trial.model.arm_id for trial in grid if name in trial.methods}
        for extra in extras:
            if (extra.method, extra.place) == (name, str(place)):
                for trial in _of_extra(study, extra, mistakes):
                    beside = bool(arms) and trial.model.arm_id not in arms
                    yield replace(trial, refined=beside)


def _of_extra(study: Study, extra: Extra, mistakes: list[Mistake]) -> list[PlannedTrial]:
    """A point beside the grid, once a seed."""
    name, seeds = extra.method, list(extra.seeds) or study.methods[extra.method].seeds
    method = at(study, name, extra.axes).model_copy(update={"exclude": [], "seeds": seeds})
    dataset, backbone = reversed(extra.place.split("/"))
    place = Place(dataset, backbone)
    return [
        replace(trial, candidate=extra.candidate)
        for parts, axes in _grid(name, method, study, place, mistakes)
        for trial in _seeded(name, method, study, parts, axes, mistakes)
    ]


def _grid(
    name: str, method: Method, study: Study, place: Place, mistakes: list[Mistake]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A method's points in a place: the components of each, and where it lies on the axes."""
    excluded = Exclusions(method.exclude, f"methods.{name}.exclude")
    for points in _points(name, method, study, mistakes):
        axes = {key: value for point in points for key, value in point.axes.items()}
        if excluded.leave_out(axes):
            continue
        parts = dict(zip((*COMPONENTS, "training"), (p.value for p in points), strict=True))
        if Place(parts["dataset"].name, parts["backbone"].name) != place:
            continue
        made_of = ("dataset", "backbone", "loss", "transform")
        reason = refusal(**{part: parts[part] for part in made_of})
        if reason is not None:
            mistakes.append(Mistake(f"methods.{name}", reason))
            continue
        for named in ("dataset", "backbone"):  # stands in the run's name already
            axes.pop(named, None)
        yield parts, axes
    mistakes += excluded.mistakes()


def _seeded(
    name: str,
    method: Method,
    study: Study,
    parts: Mapping[str, Any],
    axes: dict[str, Any],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
    """A point of a method, once a seed or checkpoint."""
    for model, checkpoint in _models(name, method, study, parts, mistakes):
        yield PlannedTrial(
            model=model,
            checkpoint=checkpoint,
            labels={name: " ".join([name, *map(_assignment, axes.items())])},
            axes={name: axes},
        )


def _models(
    name: str, method: Method, study: Study, parts: Mapping[str, Any], mistakes: list[Mistake]
) -> Iterator[tuple[ModelConfig, Path | None]]:
    """A model a seed, or a checkpoint with the place of its weights."""
    if method.checkpoint is None:
        arm = ModelConfig(**parts, seed=0)
        for seed in dict.fromkeys(method.seeds or study.seeds):
            yield arm.seeded(seed), None
    else:
        yield from given_models(name, method, parts, mistakes)


def _points(
    name: str, method: Method, study: Study, mistakes: list[Mistake]
) -> Iterator[tuple[Point, ...]]:
    """All combinations of a method's axes, in the order of COMPONENTS and training."""
    where = f"methods.{name}"
    data = study.data if method.data is None else method.data
    backbone = study.backbone if method.backbone is None else method.backbone
    is_given = method.checkpoint is not None
    training = {} if is_given else {**study.training, **method.training}
    no_loss = [Point(Unknown(), {})] if is_given and method.loss is None else None
    return itertools.product(
        settle("dataset", data, "dataset", "data", mistakes),
        settle("backbone", backbone, "backbone", "backbone", mistakes),
        no_loss or settle("loss", method.loss, "loss", f"{where}.loss", mistakes),
        settle("regime", method.regime, "regime", f"{where}.regime", mistakes),
        settle("transform", method.transform, "transform", f"{where}.transform", mistakes),
        settle_training(training, f"{where}.training", mistakes),
    )


def _twins(trials: Iterable[PlannedTrial]) -> Iterator[Mistake]:
    """Different configurations that would bear one name, and one that would bear two."""
    arms: dict[tuple[str, str], str] = {}
    models: dict[str, str] = {}
    labels: dict[tuple[str, str], str] = {}
    for trial in trials:
        arm = trial.model.arm_id
        for method, label in trial.labels.items():
            where = f"methods.{method}"
            if models.setdefault(trial.id, arm) != arm:
                what = f"{trial.name} is a model of another method as well, with other seeds"
                yield Mistake(f"{where}.checkpoint", f"{what}: name the same checkpoints in both")
            if arms.setdefault((label, trial.place), arm) != arm:
                what = f"two configurations would both be called {label!r} on {trial.place}"
                help = "make them two methods, or the parameter that differs an axis"
                yield Mistake(where, f"{what}: {help}")
            if labels.setdefault((method, trial.id), label) != label:
                what = f"{label!r} would be called {labels[method, trial.id]!r} as well"
                yield Mistake(where, f"{what}: make the two grids two methods")


def _merge(trials: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
    """Identical points once: under all their methods' names, with all that is measured of them."""
    groups: dict[str, list[PlannedTrial]] = {}
    for trial in trials:
        groups.setdefault(trial.id, []).append(trial)
    arms = Counter(same[0].model.arm_id for same in groups.values())
    for first, *others in groups.values():
        if not others:
            yield replace(first, seeds=arms[first.model.arm_id])
            continue
        same = [first, *others]
        yield replace(
            first,
            labels=joined(trial.labels for trial in same),
            axes=joined(trial.axes for trial in same),
            seeds=arms[first.model.arm_id],
            cells=joined(trial.cells for trial in same),
            diagnostics=joined(trial.diagnostics for trial in same),
            candidate=all(trial.candidate for trial in same),
            refined=all(trial.refined for trial in same),
            watch=None if any(not trial.candidate for trial in same) else first.watch,
        )


def _assignment(item: tuple[str, Any]) -> str:
    key, value = item
    return f"{key.rsplit('.', 1)[-1]}={names.short(value)}"
