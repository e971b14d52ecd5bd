"""Whether a study's results are what its models give: a sample is measured again and compared."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from study.bars import along
from study.driver import fetch
from study.planned import Plan, PlannedTrial
from study.references import entries_of, trials_of, wanted_by
from study.site import Site
from trainables.config import Cell, TrialConfig
from trainables.datasets.load import load_splits
from trainables.errors import BadSample, DamagedEntry, IncompleteStudy, StudyError
from trainables.evaluation import measure
from trainables.execution import Execution, prepare
from trainables.store import Store
from trainables.trial import Trial, load_model

TOLERANCE = 0.005  # of outcomes that may differ on another machine (DESIGN, Determinism)

SAME_BITS, OTHERWISE, DIFFERS = "same bits", "made otherwise", "DIFFERS"


@dataclass(frozen=True)
class Comparison:
    """One result of the store beside the same made anew.

    Attributes:
        trial: the model's name.
        what: the cell's name, or `training`.
        alike: whether it was made as it is now: device, threads, layout, packing, versions, host.
        equal: whether both are the same bits.
        n: images compared; 0 of a model.
        differing: how many of them have another outcome; of a model that draws at random each
            counts by its share of passes.
    """

    trial: str
    what: str
    alike: bool
    equal: bool
    n: int
    differing: float

    @property
    def verdict(self) -> str:
        """`same bits`; `made otherwise` where others may be; else `DIFFERS`."""
        if self.equal:
            return SAME_BITS
        return DIFFERS if self.alike else OTHERWISE


def agree(comparisons: Sequence[Comparison]) -> bool:
    """Whether all that has to be equal is, and the rest differs in no more than `TOLERANCE`."""
    apart = [found for found in comparisons if not found.alike]
    differing, n = sum(found.differing for found in apart), sum(found.n for found in apart)
    return all(found.verdict != DIFFERS for found in comparisons) and differing <= TOLERANCE * n


def summary(comparisons: Sequence[Comparison]) -> str:
    """How it went, in a line."""
    apart = [found for found in comparisons if not found.alike]
    alike = len(comparisons) - len(apart)
    equal = sum(found.equal for found in comparisons if found.alike)
    parts = [f"{equal} of {alike} made again as they were have the same bits"] * bool(alike)
    if n := sum(found.n for found in apart):
        share = sum(found.differing for found in apart) / n
        most = f"at most {100 * TOLERANCE:g} % may"
        parts.append(
            f"of {len(apart)} made otherwise {100 * share:.2g} % of outcomes differ, {most}"
        )
    return "; ".join(parts)


def sample_size(text: str, total: int) -> int:
    """How many of `total` a sample has: `1%`, rounded up, or a number; one at least.

    Raises:
        BadSample: it is neither.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        wanted = float(number)
    except ValueError:
        wanted = math.nan
    largest = 100.0 if percent else math.inf
    if rest or not 0 < wanted <= largest or not (percent or wanted.is_integer()):
        raise BadSample(f"expected a share such as 1% or a whole number, found {text!r}")
    return min(total, max(1, math.ceil(wanted * total / 100 if percent else wanted)))


def damaged_entries(plan: Plan, store: Store) -> tuple[int, list[str]]:
    """How many whole entries a study has in a store, and what is wrong with the others."""
    checked, damaged = 0, []
    for id, results in along(list(wanted_by(plan).items()), "checksums"):
        for entry in entries_of(id, results):
            try:
                store.read(entry)
                checked += 1
            except FileNotFoundError:
                continue
            except DamagedEntry as error:
                damaged.append(str(error))
    return checked, damaged


def measured_again(plan: Plan, site: Site, sample: str, seed: int) -> Iterator[Comparison]:
    """Measures a random sample of attacks on stored models again; the store stays as it is.

    Args:
        plan: the study.
        site: its store, its data, and how it computes.
        sample: see `sample_size`; spread over the models.
        seed: of the draw.

    Raises:
        IncompleteStudy: no attack has a result whose model is here.
        MissingData, DamagedData: the data cannot be had.
    """
    trials = trials_of(plan)
    found = {id: _measured_cells(trial, site.store) for id, trial in trials.items()}
    total = sum(map(len, found.values()))
    if not total:
        raise IncompleteStudy(
            f"{site.store.url} has no model of {plan.name} with results: nothing can be measured "
            "again (a bundle has the models if it was exported with --models)"
        )
    drawn = list(_spread(found, random.Random(seed)))[: sample_size(sample, total)]
    fetch([trials[id].model for id, _ in drawn], Path(site.data).expanduser(), site.store)
    execution = prepare(**site.alone)
    for id, name in along(sorted(drawn), "measuring again"):
        yield _compared(trials[id], name, site.store, execution)


def trained_again(plan: Plan, site: Site, sample: str, seed: int) -> Iterator[Comparison]:
    """Trains a random sample of a study's models from scratch, elsewhere, and compares weights.

    On another machine, or in a pack, training takes another path: nothing is said there.

    Args:
        plan: the study.
        site: its store, its data, and how it computes.
        sample: see `sample_size`.
        seed: of the draw.

    Raises:
        IncompleteStudy: no model is here.
        MissingData, DamagedData: the data cannot be had.
    """
    trials = trials_of(plan)
    trained = [id for id, trial in trials.items() if trial.checkpoint is None]
    here = [id for id in trained if site.store.has(f"models/{id}")]
    if not here:
        raise IncompleteStudy(f"{site.store.url} has no model of {plan.name}")
    drawn = random.Random(seed).sample(sorted(here), sample_size(sample, len(here)))
    fetch([trials[id].model for id in drawn], Path(site.data).expanduser(), site.store)
    execution = prepare(**site.alone)
    for id in along(sorted(drawn), "training again"):
        yield _retrained(trials[id], site.store, execution)


def _measured_cells(trial: PlannedTrial, store: Store) -> list[str]:
    """The names of a trial's attacks that can be measured again."""
    models = {trial.id, *trial.sources}
    if not all(store.has(f"models/{id}") for id in models):
        return []
    there = store.entries(f"outcomes/{trial.id}")
    by_id = {id: name for name, id in trial.cell_ids.items() if id in there}  # names may share one
    return sorted(by_id.values())


def _spread(found: Mapping[str, list[str]], draw: random.Random) -> Iterator[tuple[str, str]]:
    """All (trial, cell) in random order, no model twice before all others were once."""
    left = {id: draw.sample(names, len(names)) for id, names in sorted(found.items())}
    while left := {id: names for id, names in left.items() if names}:
        for id in draw.sample(list(left), len(left)):
            yield id, left[id].pop()


def _compared(trial: PlannedTrial, name: str, store: Store, execution: Execution) -> Comparison:
    cell, id = trial.cells[name], trial.cell_ids[name]
    before = store.read(f"outcomes/{trial.id}/{id}")
    now = _measured(trial, cell, store, execution)
    equal = all(before[key] == data for key, data in now.items())
    old, new = (safetensors.numpy.load(held["outcome.safetensors"]) for held in (before, now))
    passes = json.loads(before["outcome.json"])["passes"]
    differing = np.abs(old["correct_after"] - new["correct_after"]).sum() / passes
    alike = _made_alike(before, execution)
    return Comparison(trial.name, name, alike, equal, len(old["labels"]), float(differing))


def _measured(
    trial: PlannedTrial, cell: Cell, store: Store, execution: Execution
) -> dict[str, bytes]:
    classifier = load_model(store, trial.id, execution)
    sources = {id: load_model(store, id, execution) for id in cell.sources}
    splits = load_splits(trial.model.dataset, execution)
    return measure(classifier, [cell], splits, sources)[0]


def _retrained(trial: PlannedTrial, store: Store, execution: Execution) -> Comparison:
    before = store.read(f"models/{trial.id}")
    with tempfile.TemporaryDirectory() as folder:
        again = Trial(TrialConfig(model=trial.model, cells=()), Store(folder), execution)
        report = again.advance()
        while not report.done:
            report = again.advance()
        if report.failed or report.starved:
            raise StudyError(
                f"{trial.name} could not be trained: {report.failed or report.starved}"
            )
        now = again.store.read(f"models/{trial.id}")
    equal = before["weights.safetensors"] == now["weights.safetensors"]
    return Comparison(trial.name, "training", _made_alike(before, execution), equal, 0, 0.0)


def _made_alike(objects: Mapping[str, bytes], execution: Execution) -> bool:
    """Whether bits may be compared: the share of a GPU is none of what they depend on."""
    recorded: dict[str, object] = json.loads(objects["execution.json"])
    return {**recorded, "gpu": None} == {**execution.record(), "gpu": None}
