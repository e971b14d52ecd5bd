"""What is measured of each trial: the protocol's cells that apply to it, and its diagnostics."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, cast

from study.check import surface_of
from study.planned import Plan, PlannedTrial, unique
from study.protocol import NamedCell, Protocol
from study.settle import settle_labelled
from study.spec import CLEAN, Study
from trainables import names
from trainables.attacks.base import Attack, SourceModel
from trainables.config import Cell, SplitName, canonical
from trainables.diagnostics.base import Diagnostic
from trainables.errors import Mistake, UnknownLoss


def measured(
    study: Study,
    protocol: Protocol,
    trials: Sequence[PlannedTrial],
    chosen: frozenset[str],
    axes: Mapping[str, Mapping[str, Sequence[Any]]],
    mistakes: list[Mistake],
) -> Iterator[PlannedTrial]:
    """The trials with what is to be measured of each; `axes` are those of the grids."""
    cells, diagnostics = protocol.cells, dict(diagnostics_in(study, mistakes))
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
            here = alike[key]
        except UnknownLoss as error:
            mistakes.append(Mistake(f"methods.{trial.methods[0]}", str(error)))
            continue
        if trial.candidate:
            kept = {n: cell for n, cell in here.items() if cell.split == names.VALIDATION}
            yield replace(trial, cells=kept, watch=_watched(study, trial))
            continue
        looked = _diagnostics_of(study, trial, leading, diagnostics)
        yield replace(trial, cells=here, diagnostics=looked)


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


def left_out(plan: Plan) -> list[str]:
    """Which methods go without which of their study's diagnostics, and why."""
    diagnostics = [found for study in plan.studies for found in diagnostics_in(study, [])]
    return unique(
        f"{method}: no {label}: {reason}"
        for trial in plan.trials
        for method in trial.methods
        for label, diagnostic in diagnostics
        if label not in trial.diagnostics
        and (reason := diagnostic.refuses(trial.model.backbone)) is not None
    )


def diagnostics_in(study: Study, mistakes: list[Mistake]) -> Iterator[tuple[str, Diagnostic]]:
    """Each label's one diagnostic."""
    for label, node in study.diagnostics.items():
        points = settle_labelled("diagnostic", label, node, mistakes)
        if len(points) > 1:
            what = f"expected one setting, found {len(points)}: a diagnostic has no axes"
            mistakes.append(Mistake(f"diagnostics.{label}", what))
        yield from ((label, cast(Diagnostic, point.value)) for point in points[:1])
