"""The section "Method by method": all that is known of one method, on a page of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.choice import Arm, choice_note, shown_arms
from analysis.figures.exhibits import Gallery, gallery
from analysis.figures.files import Album, Drawing
from analysis.figures.gallery import draw_gallery
from analysis.plan import Group, Plan
from analysis.runs import Results
from analysis.statistics import Estimate, paired_difference
from analysis.tables.accuracy import AccuracyTable, Column, Row
from analysis.tables.audit import AuditTable, Failure

# What a configuration is made of, in the order in which it is told.
_PARTS = ("loss", "regime", "transform", "backbone", "dataset", "training", "checkpoint")


@dataclass(frozen=True)
class Line:
    """One accuracy of a method.

    Attributes:
        section: The table that it stands in: attack, budget, surface.
        column: What it was measured under.
        estimate: A fraction.
        mark: How far the attack is to be believed; empty without one.
        less_baseline: The method's less the baseline's, seed by seed.
    """

    section: str
    column: Column
    estimate: Estimate
    mark: str
    less_baseline: Estimate


@dataclass(frozen=True)
class Profile:
    """One method on one data set and backbone.

    Attributes:
        group: Data set and backbone.
        anchor: Names its place on the page.
        row: Its row of the accuracy table; of several configurations the first.
        facts: What it is, in named texts.
        lines: Its accuracies.
        failures: The checks that its headline or surfaces fail.
        images: Its worst and best images under attack, as figures.
        baseline: Whom `less_baseline` is against; empty for none.
    """

    group: Group
    anchor: str
    row: Row
    facts: Mapping[str, str]
    lines: tuple[Line, ...]
    failures: tuple[Failure, ...]
    images: tuple[Drawing, ...]
    baseline: str


def profiles(
    results: Results, table: AccuracyTable, verdicts: AuditTable, album: Album
) -> list[Profile]:
    """A profile a method, in the order of the accuracy table.

    Args:
        results: The study.
        table: The accuracy table of a data set and backbone.
        verdicts: The audit's of the same.
        album: Where the images go.
    """
    group, plan = table.group, results.plan
    arms = shown_arms(results, group)
    galleries = [
        found
        for label, kind in plan.diagnostics.items()
        if kind == "exhibits" and (found := gallery(results, group, label))
    ]
    baseline = next((arm for arm in arms if arm.method == plan.baseline), None)
    firsts = {arm.method: index for index, arm in reversed(list(enumerate(arms)))}
    return [
        Profile(
            group=group,
            anchor=anchor(group, arms[index].method, plan),
            row=table.rows[index],
            facts=dict(_facts(results, arms, arms[index])),
            lines=tuple(_lines(table, table.rows[index], arms[index], baseline)),
            failures=verdicts.rows[index].failures,
            images=tuple(_images(album, galleries, arms[index].method)),
            baseline=baseline.label if baseline and baseline is not arms[index] else "",
        )
        for index in sorted(firsts.values())
    ]


def anchor(group: Group, method: str, plan: Plan) -> str:
    """Where a method's profile is to be found; names may hold what links may not."""
    return f"method-{group.stem}-{plan.methods.index(method)}"


def _facts(results: Results, arms: Sequence[Arm], arm: Arm) -> Iterator[tuple[str, str]]:
    ids = list(arm.rows["trial_id"])
    params = results.plan.params.get(ids[0], {}) if ids else {}
    for part in _PARTS:
        named = {
            key.removeprefix(f"{part}."): value
            for key, value in params.items()
            if key.startswith(f"{part}.")
        }
        told = ", ".join(f"{key} {value}" for key, value in named.items())
        text = f"{params.get(part, '')} ({told})" if part in params and told else told
        if text or part in params:
            yield part, text or params[part]
    yield "seeds", ", ".join(map(str, results.plan.seeds.get(arm.method, ())))
    if arm.choice:
        yield "hyper-parameters", choice_note(arm.choice)
    others = sum(other.method == arm.method for other in arms) - 1
    if others:
        yield "configurations", f"this one is the first of {others + 1}; the tables have all"


def _lines(table: AccuracyTable, row: Row, arm: Arm, baseline: Arm | None) -> Iterator[Line]:
    for section in table.sections:
        for column in section.columns:
            mine = arm.values(column.metric)
            theirs = mine.iloc[:0] if baseline is None else baseline.values(column.metric)
            yield Line(
                section=section.title,
                column=column,
                estimate=row.estimates[column.metric],
                mark=row.mark(column.metric),
                less_baseline=paired_difference(mine, theirs),
            )


def _images(album: Album, galleries: Sequence[Gallery], method: str) -> Iterator[Drawing]:
    """A method's own part of each gallery."""
    for found in galleries:
        own = [each for each in found.exhibits if each.method == method and len(each.frame)]
        if own:
            yield album.add_inlined(Drawing(draw_gallery, (Gallery(found.group, tuple(own)),)))
