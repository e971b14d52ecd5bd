"""What a claim names, found among the results of one data set and backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis.choice import Arm, shown_arms
from analysis.claims.claim import CHOSEN, CLEAN, HEADLINE, Cells, Claim, Item, Measure
from analysis.images import Images
from analysis.plan import FULL, Cell, Group
from analysis.published import Column
from analysis.published.match import ROWS, STANDS_FOR, column_of, control_of, row_of
from analysis.runs import Results
from analysis.specimens import metric
from analysis.tables.audit import Audits, cell_marks, gravest, headline_marks
from analysis.tables.paper import readings, rebuilt
from analysis.tables.text import GOALS
from trainables import names
from trainables.errors import nearest

_DOUBTED = (names.MASKED, names.WEAK)
_SUBSET = "dataset.subset."


@dataclass(frozen=True)
class Yardstick:
    """One accuracy, or number, by which arms are compared.

    Attributes:
        title: What the deciding cell is called, as over the accuracy table's column.
        metric: The frame's column.
        cells: The outcomes' cells, over which it is the per-image worst; none of a number.
        is_headline: Whether its larger side has to be trusted.
        is_attacked: Whether it has marks at all.
        has_threat_model: Whether it may contradict anything.
        column: The paper's column that it stands in, if any.
    """

    title: str
    metric: str
    cells: tuple[str, ...] = ()
    is_headline: bool = False
    is_attacked: bool = True
    has_threat_model: bool = True
    column: Column | None = None

    @property
    def unit(self) -> float:
        """What its values are multiplied by for readers: accuracies are told in points."""
        return 100.0 if self.cells else 1.0


@dataclass(frozen=True)
class View:
    """What a claim is judged under at once.

    Attributes:
        reading: How it is called: the headline, or a reading of eps.
        yardsticks: The cells.
        absent: The paper's columns that are claimed on and the study does not have.
        cells: What the claim says of them; None of anything but cells.
    """

    reading: str
    yardsticks: tuple[Yardstick, ...]
    absent: tuple[Column, ...] = ()
    cells: Cells | None = None


class Place:
    """The results of one data set and backbone, looked up once for all claims."""

    def __init__(self, results: Results, group: Group, audits: Audits, images: Images) -> None:
        self.group = group
        self.images = images
        self._results = results
        self._plan = results.plan
        self._protocol = results.plan.protocol(group)
        self._audits = audits
        self._marks: dict[str, Mapping[str, str]] = {}
        self._rebuilt = {table.number: columns for table, columns in rebuilt(results.plan, group)}

    def speaks_of(self, claim: Claim) -> bool:
        """Whether it decides a claim: by its names, or by a table that it rebuilds at all."""
        dataset = STANDS_FOR.get(self.group.dataset, self.group.dataset)
        tables = {item.table for item in claim.under if isinstance(item, Cells)} - {None}
        if claim.where.dataset in (None, dataset) and tables & self._rebuilt.keys():
            return True
        # The columns of a table that it does not rebuild are not there to be judged.
        return claim.where.fits(self.group) and len(tables) < len(claim.under)

    def reduced(self, claim: Claim) -> str:
        """What is smaller than what a claim is about, in words; empty for nothing."""
        if not claim.needs_all:
            return ""
        printed = [columns[0] for item in claim.under if (columns := self._columns(item))]
        column = printed[0] if printed else None
        whole = column.dataset if column else STANDS_FOR.get(self.group.dataset)
        meant = {
            "dataset": claim.where.dataset or whole,
            "backbone": claim.where.backbone or (column.backbone if column else None),
        }
        ours = self.group._asdict()
        told = [f"--scale {self._plan.scale}"] if self._plan.scale != FULL else []
        told += [
            f"{ours[key]} stands for {wanted}"
            for key, wanted in meant.items()
            if wanted not in (None, ours[key])
        ]
        if self._subset:
            told.append(f"a subset of the data ({self._subset})")
        return ", ".join(told)

    @cached_property
    def _subset(self) -> str:
        """`train 20000`: what the trials' data are cut down to."""
        for trial in self._plan.trials:
            if (trial["dataset"], trial["backbone"]) == self.group:
                found = self._plan.params[trial["trial_id"]]
                cut = {key: value for key, value in found.items() if key.startswith(_SUBSET)}
                return ", ".join(f"{key.removeprefix(_SUBSET)} {cut[key]}" for key in cut)
        return ""

    def views(self, claim: Claim) -> list[View]:
        """What a claim is judged under here: once for each reading of what it names."""
        if claim.measure:
            return list(self._measured(claim.measure))
        return [view for item in claim.under for view in self._views(item)]

    def _views(self, item: Item) -> Iterator[View]:
        if item == HEADLINE:
            leading = [
                c for c in self._protocol.cells if c.metric in self._protocol.headline_metrics
            ]
            yield View(
                HEADLINE,
                (
                    Yardstick(
                        self._protocol.headline_label or HEADLINE,
                        names.ROBUST,
                        self._protocol.headline_metrics,
                        is_headline=True,
                        has_threat_model=all(cell.has_threat_model for cell in leading),
                    ),
                ),
            )
        elif item == CLEAN:
            cells = (names.clean_name(names.TEST),)
            yield View(CLEAN, (Yardstick(CLEAN, names.CLEAN, cells, is_attacked=False),))
        elif isinstance(item, Cells):
            yield from self._read(item)

    def _columns(self, item: Item) -> tuple[Column, ...]:
        """The paper's columns that an item names, as far as the group rebuilds their table."""
        if not isinstance(item, Cells) or item.table not in self._rebuilt:
            return ()
        own = self._rebuilt[item.table]
        return tuple(column for column in item.printed(own[0].dataset) if column in own)

    def _read(self, item: Cells) -> Iterator[View]:
        """One view a reading, in the plan's order."""
        cells = item.among(self._protocol.test_attacks)
        wanted = self._columns(item)
        backbone = wanted[0].backbone if wanted else self.group.backbone
        if item.table is None:
            own = (column_of(cell, self.group, backbone) for cell in cells)
            wanted = tuple(dict.fromkeys(column for column in own if column))
        for reading in readings(self._plan, self.group, wanted) if wanted else ():
            found = {column: cell for column, cell in reading.cells.items() if cell in cells}
            if found:
                absent = tuple(column for column in wanted if column not in found)
                yardsticks = tuple(_yardstick(*pair) for pair in found.items())
                yield View(reading.title, yardsticks, absent if item.table else (), item)

    def _measured(self, measure: Measure) -> Iterator[View]:
        for label, kind in self._plan.diagnostics.items():
            if kind == measure.diagnostic:
                title = f"{label}: {measure.number}"
                number = metric(label, measure.number)
                yield View(f"diagnostic {label}", (Yardstick(title, number, is_attacked=False),))

    def named(self, name: str, subject: Arm | None = None) -> list[Arm]:
        """The configurations that a name stands for, each once: see `Claim`.

        A tuned method stands for validation's choice. A point of its grid is found by what the
        paper calls it alone: whoever names another may have seen the test images.

        Args:
            name: Of a method, a label, a row of the paper, a control, or `CHOSEN`.
            subject: Whose loss's grid `CHOSEN` is chosen from; any by default.
        """
        if name == CHOSEN:
            chosen = [arm for arm in self.arms if arm.choice]
            return [arm for arm in chosen if not subject or self._loss(arm) == self._loss(subject)]
        shown = [arm for arm in self.arms if name in (arm.method, arm.label, self._role(arm))]
        return _once(shown) or _once(arm for arm in self._grid_points if self._role(arm) == name)

    def hint(self, name: str) -> str:
        """What might have been meant by a name that stands for nothing here."""
        labels = set(self._results.frame["label"]) if "label" in self._results.frame else set()
        if name in labels - {arm.label for arm in self.arms}:
            return (
                ": a point of a grid, selected on test for all one knows; name the method, which "
                "stands for validation's choice"
            )
        known = {word for arm in self.arms for word in (arm.method, arm.label)} | {*ROWS, CHOSEN}
        return "" if name in known else nearest(name, known)

    @cached_property
    def arms(self) -> list[Arm]:
        """What tables show."""
        return shown_arms(self._results, self.group)

    @cached_property
    def _grid_points(self) -> list[Arm]:
        """The points of tuned methods that the paper has a name for."""
        found = []
        for method in self._plan.chosen_methods:
            rows = self._results.rows(self.group, method)
            firsts = rows.drop_duplicates("arm")
            for arm, trial, label in zip(
                firsts["arm"], firsts["trial_id"], firsts["label"], strict=True
            ):
                if _role(self._plan.params[trial]):
                    found.append(Arm(method, str(label), rows[rows["arm"] == arm]))
        return found

    def _params(self, arm: Arm) -> Mapping[str, str]:
        ids = arm.rows["trial_id"]
        return {} if ids.empty else self._plan.params[ids.iloc[0]]

    def _role(self, arm: Arm) -> str | None:
        return _role(self._params(arm))

    def _loss(self, arm: Arm) -> str | None:
        return self._params(arm).get("loss")

    def doubt(self, arm: Arm, yardstick: Yardstick) -> str:
        """Why an arm's accuracy may be too high to stand on, in words; empty for no reason."""
        if not yardstick.is_attacked:
            return ""
        if yardstick.is_headline:
            mark = gravest(headline_marks(arm))
            return "" if mark == names.TRUSTED else f"{arm.label} {mark or 'has no headline'}"
        if arm.label not in self._marks:
            self._marks[arm.label] = self._marked(arm)
        mark = self._marks[arm.label].get(yardstick.metric, "")
        return f"{arm.label} {mark}" if mark in _DOUBTED else ""

    def _marked(self, arm: Arm) -> Mapping[str, str]:
        """Each cell's mark; masked where a check of its own fails, which a path's mark hides."""
        found = [self._audits[run] for run in arm.rows["run_id"] if run in self._audits]
        failed = {check.about for audit in found for check in audit.checks if check.failed}
        marks = cell_marks(arm, self._protocol, self._audits)
        return {
            **marks,
            **{cell: names.MASKED for cell in failed if marks.get(cell) not in _DOUBTED},
        }


def _role(params: Mapping[str, str]) -> str | None:
    """What the paper, or METHODS 1, calls a configuration."""
    return row_of(params) or control_of(params)


def _yardstick(column: Column, cell: Cell) -> Yardstick:
    words = (cell.attack_title, GOALS[cell.goal], str(cell.steps))
    title = f"{' '.join(filter(None, words))}, {cell.size}"
    bounded = cell.has_threat_model
    return Yardstick(title, cell.metric, (cell.name,), has_threat_model=bounded, column=column)


def _once(arms: Iterator[Arm] | Sequence[Arm]) -> list[Arm]:
    """Equal configurations once, in whose name most seeds stand."""
    kept: dict[str, Arm] = {}
    for arm in arms:
        key = arm.label if arm.rows.empty else str(arm.rows["arm"].iloc[0])
        if key not in kept or len(arm.rows) > len(kept[key].rows):
            kept[key] = arm
    return list(kept.values())
