"""What a finished trial amounts to: outcomes of the store as metrics and as one frame."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

from study.planned import PlannedTrial
from study.protocol import Protocol
from trainables import names
from trainables.attacks.base import Columns
from trainables.store import Store

Arrays = dict[str, np.ndarray]
_TITLES = {"labels": "label", "targets": "target"}  # columns of frames, by array


@dataclass(frozen=True)
class Outcome:
    """One cell's outcome on a model.

    Attributes:
        arrays: one value an image, by column; `labels` and `passes` among them.
        by_pass: whether each pass is right under attack, (n, passes).
        stages: what the attack is made of; `broken_by` counts them.
    """

    arrays: Arrays
    by_pass: np.ndarray
    stages: tuple[str, ...]

    @property
    def shares(self) -> np.ndarray:
        """The share of passes that are right under attack, (n,)."""
        shares: np.ndarray = self.arrays["correct_after"] / self.arrays["passes"]
        return shares

    @property
    def accuracy(self) -> float:
        """Their mean."""
        return float(self.shares.mean())

    @property
    def broken_by(self) -> list[str]:
        """The stage that broke each image, empty where none did."""
        return ["" if stage < 0 else self.stages[stage] for stage in self.arrays["broken_by"]]


@dataclass(frozen=True)
class Finding:
    """What a diagnostic left in the store: its arrays as a safetensors file, and its numbers."""

    arrays: bytes
    numbers: dict[str, float]


def read_outcome(store: Store, trial_id: str, cell_id: str) -> Outcome:
    """One cell's outcome."""
    objects = store.read(f"outcomes/{trial_id}/{cell_id}")
    arrays: Arrays = safetensors.numpy.load(objects["outcome.safetensors"])
    about = json.loads(objects["outcome.json"])
    by_pass = arrays.pop("by_pass")
    arrays["passes"] = np.full(len(arrays["labels"]), about["passes"])
    return Outcome(arrays, by_pass, tuple(about["stages"]))


def is_complete(trial: PlannedTrial, store: Store) -> bool:
    """Whether every cell of a trial has a result."""
    return trial.result_ids <= store.entries(f"outcomes/{trial.id}")


@dataclass(frozen=True)
class Validated:
    """What choices are made by: accuracies on validation images, as fractions.

    Attributes:
        clean: without an attack.
        robust: under the headline.
    """

    clean: float
    robust: float


def validated(store: Store, protocol: Protocol, trial: PlannedTrial) -> Validated:
    """A trial's accuracies on validation images.

    Raises:
        FileNotFoundError: it has not been measured.
        DamagedEntry: an outcome is damaged; it is set aside, to be measured again.
    """

    def read(name: str) -> Outcome:
        return read_outcome(store, trial.id, trial.cell_ids[name])

    headline = [read(name) for name in protocol.headline[names.VALIDATION]]
    return Validated(read(names.clean_name(names.VALIDATION)).accuracy, worst(headline))


def read_finding(store: Store, trial_id: str, cell_id: str) -> Finding:
    """What a diagnostic found on a model."""
    objects = store.read(f"outcomes/{trial_id}/{cell_id}")
    return Finding(objects["arrays.safetensors"], json.loads(objects["numbers.json"]))


def metrics(
    protocol: Protocol,
    trial: PlannedTrial,
    outcomes: Mapping[str, Outcome],
    record: Mapping[str, Any],
) -> list[tuple[str, float, int]]:
    """Every number of a finished trial as (metric, value, step).

    Of a candidate, which has no test images, those of its validation images.
    """
    values = {
        names.ROBUST_VAL: worst([outcomes[name] for name in protocol.headline[names.VALIDATION]]),
        names.TRAIN_SECONDS: sum(epoch["seconds"] for epoch in record.get("history", [])),
        names.ATTACK_SECONDS: _attack_seconds(trial, record),
    }
    values |= {name: outcome.accuracy for name, outcome in outcomes.items()}
    if trial.candidate:
        return [(key, value, 0) for key, value in values.items()]
    test = {
        name: outcome for name, outcome in outcomes.items() if trial.cells[name].split == names.TEST
    }
    headline = [test[name] for name in protocol.headline[names.TEST]]
    values |= {
        names.CLEAN: test[names.clean_name(names.TEST)].accuracy,
        names.ROBUST: worst(headline),
        names.MASKING_GAP: _masking_gap(protocol, test),
        names.N: float(len(headline[0].shares)),
    }
    bounded = [test[name] for name in bounded_cells(protocol, test)]
    if bounded:
        values[names.WORST_CASE] = worst(bounded)
    for name, cells in protocol.worst_raw.items():
        if test.keys() >= set(cells):  # else the attack does not apply to this model
            values[name] = worst([test[cell] for cell in cells])
    own = {name: outcome for name, outcome in test.items() if not protocol.by_name[name].check}
    for name, outcome in own.items():  # `frame` has the rest: each metric slows MLflow's search
        values |= _further(protocol, name, outcome)
    results = [(key, value, 0) for key, value in values.items()]
    return results + list(_series(protocol, own))


def _attack_seconds(trial: PlannedTrial, record: Mapping[str, Any]) -> float:
    """What its cells took, each once; the record may have others, of earlier plans."""
    own = trial.result_ids
    found: dict[str, float] = record.get("cell_seconds", {})
    return sum(seconds for cell_id, seconds in found.items() if cell_id in own)


def bounded_cells(protocol: Protocol, test: Iterable[str]) -> list[str]:
    """The cells that the worst case is taken over: attacks with a budget.

    All of the study's; of an audit's those within the headline's ball.
    """
    leading = protocol.leading
    audit = {cell.name for cell in protocol.cells if cell.check}
    found = []
    for name in test:
        columns = protocol.columns(name)
        if columns is None or columns.norm is None:
            continue
        inside = columns.budget == leading.budget and columns.eps <= leading.eps
        if inside or name not in audit:
            found.append(name)
    return found


def frame(protocol: Protocol, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """All cells of a run as one long frame, a row an image; the worst case as a cell of its own.

    `broken_by` is the stage of the attack that broke the image, and for the worst case the cell.
    """
    found = list(outcomes.values())
    sizes = [len(outcome.shares) for outcome in found]
    whole = pd.DataFrame(
        {
            _TITLES.get(name, name): np.concatenate([outcome.arrays[name] for outcome in found])
            for name in found[0].arrays
        }
    )
    whole["broken_by"] = [stage for outcome in found for stage in outcome.broken_by]
    whole["cell"] = np.repeat(np.array(list(outcomes)), sizes)
    whole["index"] = np.concatenate([np.arange(n) for n in sizes])
    test = [
        cell.name for cell in protocol.cells if cell.split == names.TEST and cell.name in outcomes
    ]
    bounded = bounded_cells(protocol, test)
    if not bounded:
        return whole
    n = min(len(outcomes[name].shares) for name in bounded)
    rows = whole[whole["cell"].isin(bounded) & (whole["index"] < n)]
    # Of the cells that leave fewest passes right, the one with the smallest perturbation.
    worst = rows.sort_values(["correct_after", "l2"], kind="stable").drop_duplicates("index")
    broken = (worst["correct_after"] == 0) & (worst["correct_before"] > 0)
    by = worst["cell"].where(broken, "")
    worst = worst.assign(broken_by=by, cell=names.WORST_CASE).sort_values("index")
    return pd.concat([whole, worst], ignore_index=True)


def image_frame(outcome: Outcome) -> pd.DataFrame:
    """One cell as a frame, a row an image; its index is the image's place in the split's order.

    Columns: `label, target, correct_before, correct_after` (of `passes`), `broken_by` (which
    stage of the attack), and what else the attack has recorded, such as `l2`, `linf` and
    `queries`.
    """
    found = pd.DataFrame({_TITLES.get(name, name): a for name, a in outcome.arrays.items()})
    return found.assign(broken_by=outcome.broken_by).rename_axis(index="index")


def note(outcomes: Mapping[str, Outcome]) -> str:
    """A run's cells as a table in Markdown; the audit's last, being the first to be cut."""
    own_first = sorted(outcomes.items(), key=lambda item: item[0].startswith(names.AUDIT))
    rows = [f"| {name} | {100 * outcome.accuracy:.1f} |" for name, outcome in own_first]
    return "\n".join(["| cell | accuracy % |", "| --- | --- |", *rows])


def worst(outcomes: Sequence[Outcome]) -> float:
    """Accuracy under the worst of several attacks on each image, over images that all saw."""
    n = min(len(outcome.shares) for outcome in outcomes)
    return float(np.min([outcome.shares[:n] for outcome in outcomes], axis=0).mean())


def _masking_gap(protocol: Protocol, test: Mapping[str, Outcome]) -> float:
    """The headline setting's weakest surface less the headline itself."""
    headline = protocol.headline[names.TEST]
    setting = _setting(protocol, headline[0])
    surfaces = [
        name for name in test if protocol.columns(name) and _setting(protocol, name) == setting
    ]
    return max(test[name].accuracy for name in surfaces) - worst([test[name] for name in headline])


def _setting(protocol: Protocol, name: str) -> tuple[str, Columns]:
    """What a cell is, less the surface."""
    columns = protocol.columns(name)
    assert columns is not None
    return protocol.by_name[name].label, replace(columns, surface="")


def _further(protocol: Protocol, name: str, outcome: Outcome) -> dict[str, float]:
    """A cell's norms over the attacked images, its target hits, its spread over passes."""
    columns, arrays, further = protocol.columns(name), outcome.arrays, dict[str, float]()
    passes = outcome.by_pass.shape[1]
    if passes > 1:
        further[name + names.SPREAD] = float(outcome.by_pass.mean(axis=0).std(ddof=1))
    attacked = arrays["correct_before"] > 0
    if columns is None or not attacked.any():
        return further
    further[name + names.L2_MEDIAN] = float(np.median(arrays["l2"][attacked]))
    further[name + names.LINF_MEDIAN] = float(np.median(arrays["linf"][attacked]))
    if columns.targeted:
        further[name + names.HIT] = float((arrays["hit"] / arrays["passes"]).mean())
    return further


def _series(protocol: Protocol, test: Mapping[str, Outcome]) -> Iterable[tuple[str, float, int]]:
    """Accuracy against steps (at the largest eps) and eps (at most steps), for the UI's charts."""
    for name, outcome in test.items():
        columns = protocol.columns(name)
        if columns is None:
            continue
        family = _family(protocol, name)
        peers = [
            other
            for key in test
            if (other := protocol.columns(key)) is not None and _family(protocol, key) == family
        ]
        if columns.eps == max(peer.eps for peer in peers):
            yield f"{names.BY_STEPS}{family}", outcome.accuracy, columns.steps
        if columns.steps == max(peer.steps for peer in peers):
            yield f"{names.BY_EPS}{family}", outcome.accuracy, round(1000 * columns.eps)


def _family(protocol: Protocol, name: str) -> str:
    """What the cell is charted under: all but its eps and steps."""
    columns = protocol.columns(name)
    assert columns is not None
    return names.series_name(
        attack=protocol.by_name[name].label,
        budget=columns.budget,
        targeted=columns.targeted,
        surface=columns.surface,
        extra=columns.extra,
    )
