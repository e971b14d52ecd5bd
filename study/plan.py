"""From a study to its trials: models to train, cells to measure, each named by its content."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from study.axes import Point
from study.check import check, surface_of
from study.exclude import Exclusions
from study.files import StudyFile
from study.given import given_models
from study.loader import is_number
from study.overlay import Place
from study.protocol import NamedCell, Protocol, protocol
from study.settle import settle, settle_labelled, settle_training
from study.space import at, searched
from study.spec import CLEAN, Method, Resources, Study
from trainables import names
from trainables.attacks.base import Attack, SourceModel
from trainables.classifier import refusal
from trainables.config import COMPONENTS, Cell, ModelConfig, SplitName, TrialConfig, canonical
from trainables.diagnostics.base import Diagnostic
from trainables.errors import InvalidStudy, Mistake, UnknownLoss
from trainables.losses.base import Unknown

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
        return _joined(self.axes.values())

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
        return tuple(_unique(name for study in self.studies for name in study.methods))

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
                controls[name] = _unique([*controls.get(name, []), *arms])
        return controls

    @property
    def choose(self) -> list[str]:
        """The methods whose hyper-parameters validation chooses."""
        chosen = (study.choose.methods if study.choose else [] for study in self.studies)
        found = (searched(study) for study in self.studies)
        return _unique(itertools.chain(*chosen, *found))

    @property
    def plugins(self) -> tuple[str, ...]:
        """Packages of the user's own components."""
        return tuple(_unique(name for study in self.studies for name in study.plugins))

    @property
    def resources(self) -> Resources:
        """What a trial takes: the first study's."""
        return self.studies[0].resources if self.studies else Resources()

    @property
    def left_out(self) -> list[str]:
        """Which methods go without which of their study's diagnostics, and why."""
        diagnostics = [found for study in self.studies for found in _diagnostics(study, [])]
        return _unique(
            f"{method}: no {label}: {reason}"
            for trial in self.trials
            for method in trial.methods
            for label, diagnostic in diagnostics
            if label not in trial.diagnostics
            and (reason := diagnostic.refuses(trial.model.backbone)) is not None
        )

    @property
    def is_audited(self) -> bool:
        """Whether anything says how far to believe a headline."""
        return any(study.audit is not None for study in self.studies)


def _unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


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
        drafted += _measured(study, here, list(_merge(trials)), chosen, corners, mistakes)
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
    trials = list(_measured(study, protocol, drafted, frozenset(), {}, mistakes))
    if mistakes:
        raise InvalidStudy(plan.file.source, mistakes)
    return trials[0]


def _diagnostics(study: Study, mistakes: list[Mistake]) -> Iterator[tuple[str, Diagnostic]]:
    """Each label's one diagnostic."""
    for label, node in study.diagnostics.items():
        points = settle_labelled("diagnostic", label, node, mistakes)
        if len(points) > 1:
            what = f"expected one setting, found {len(points)}: a diagnostic has no axes"
            mistakes.append(Mistake(f"diagnostics.{label}", what))
        yield from ((label, cast(Diagnostic, point.value)) for point in points[:1])


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


def _measured(
    study: Study,
    protocol: Protocol,
    trials: Sequence[PlannedTrial],
    chosen: frozenset[str],
    axes: Mapping[str, Mapping[str, Sequence[Any]]],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
    """The trials with what is to be measured of each; `axes` are those of the grids."""
    cells, diagnostics = protocol.cells, dict(_diagnostics(study, mistakes))
    leading = [cell.attack for cell in cells if cell.headline]
    sources = _Sources(trials, mistakes)
    alike: dict[Hashable, dict[str, Cell]] = {}  # of all trials that are measured alike
    is_aimed = any(cell.attack.sources for cell in cells)
    for trial in trials:
        thorough = trial.model.arm_id in chosen or _stands_out(trial, axes)
        loss, stochastic = trial.model.loss, trial.model.transform.stochastic
        key = (trial.methods, loss, stochastic, thorough, trial.id if is_aimed else None)
        try:
            if key not in alike:
                alike[key] = {
                    cell.name: _cell(attack, cell.split, _size(study, trial, cell))
                    for cell, attack in _applying(trial, cells, sources, thorough=thorough)
                }
            measured = alike[key]
        except UnknownLoss as error:
            mistakes.append(Mistake(f"methods.{trial.methods[0]}", str(error)))
            continue
        if trial.candidate:
            kept = {n: cell for n, cell in measured.items() if cell.split == names.VALIDATION}
            yield replace(trial, cells=kept, watch=_watched(study, trial))
            continue
        looked = _diagnostics_of(study, trial, leading, diagnostics)
        yield replace(trial, cells=measured, diagnostics=looked)


def _watched(study: Study, trial: PlannedTrial) -> Cell | None:
    """The attack by which its training may be given up; None for no attack."""
    stop = study.search.stop if study.search else None
    if stop is None or stop.by == CLEAN:
        return None
    (point,) = settle_labelled("attack", stop.by, study.attacks[stop.by], [])
    attack = cast(Attack, point.value).settled(
        trial.model.loss, stochastic=trial.model.transform.stochastic
    )
    return _cell(attack, "validation", study.evaluate.validation)


@lru_cache(maxsize=4096)
def _cell(attack: Attack, split: SplitName, n: int) -> Cell:
    """One for all models that are measured alike: what it says of itself is then said once."""
    return Cell(probe=attack, split=split, n=n)


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
    return any(_is_corner_or_centre(trial.axes[name], axes.get(name, {})) for name in trial.methods)


def _is_corner_or_centre(point: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> bool:
    along = [(point[key], values) for key, values in axes.items() if key in point]
    corner = all(value in (values[0], values[-1]) for value, values in along)
    return corner or all(value == values[len(values) // 2] for value, values in along)


def _size(study: Study, trial: PlannedTrial, cell: NamedCell) -> int:
    """How many images: the method's own number, else the study's, and no more than the attack's."""
    own = [getattr(study.methods[name].evaluate, cell.split) for name in trial.methods]
    largest: int = max(n or getattr(study.evaluate, cell.split) for n in own)
    return min(largest, cell.most or largest)


class _Sources:
    """Finds the model on which adversarial images for another one are made."""

    def __init__(self, trials: Sequence[PlannedTrial], mistakes: list[Mistake]) -> None:
        self.trials = trials
        self.mistakes = mistakes

    @cached_property
    def peers(self) -> dict[tuple[str, str], list[PlannedTrial]]:
        """Trials by method and setting."""
        peers: dict[tuple[str, str], list[PlannedTrial]] = {}
        for trial in self.trials:
            for name in trial.methods:
                peers.setdefault((name, _setting(trial)), []).append(trial)
        return peers

    def find(self, trial: PlannedTrial, name: str, cell: NamedCell) -> SourceModel | None:
        """The method's model of the same data, backbone and seed; of the next seed for itself."""
        peers = self.peers.get((name, _setting(trial)), [])
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
        if diagnostic.refuses(trial.model.backbone) is None
    }


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
            labels=_joined(trial.labels for trial in same),
            axes=_joined(trial.axes for trial in same),
            seeds=arms[first.model.arm_id],
            cells=_joined(trial.cells for trial in same),
            diagnostics=_joined(trial.diagnostics for trial in same),
            candidate=all(trial.candidate for trial in same),
            refined=all(trial.refined for trial in same),
            watch=None if any(not trial.candidate for trial in same) else first.watch,
        )


def _joined(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {key: value for part in parts for key, value in part.items()}


def _assignment(item: tuple[str, Any]) -> str:
    key, value = item
    return f"{key.rsplit('.', 1)[-1]}={names.short(value)}"


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
