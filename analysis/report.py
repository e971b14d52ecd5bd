"""The report of a study: figures, tables and one page, from the tracking server alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.ablation import Ablation, ablation_frame, ablations, level_text
from analysis.answer import Answer, first_answer
from analysis.choice import choice_note, shown_arms
from analysis.citation import bibtex, repeat
from analysis.claims.claim import Claim
from analysis.claims.file import read_claims
from analysis.claims.judge import FORMULA, NOT_RUN, Finding, judge_claims
from analysis.claims.tell import READING_TITLES, claims_frame, tally
from analysis.closer import look_closer
from analysis.comparison import verdicts_frame
from analysis.figures.calibration import draw_calibration
from analysis.figures.curves import curves_frame, draw_curves
from analysis.figures.effects import draw_effects
from analysis.figures.files import Album, Drawing
from analysis.figures.grid import Grid, all_measures, figure3_measures, grid, surfaces
from analysis.figures.heatmap import draw_heatmaps, draw_widths
from analysis.figures.history import draw_history
from analysis.figures.interactive import interactive_surface
from analysis.figures.property import draw_property, property_frame
from analysis.figures.style import appearances, method_colours
from analysis.figures.surface import draw_figure3
from analysis.figures.tradeoff import draw_tradeoff, tradeoff_frame
from analysis.figures.training import draw_training, training_frame
from analysis.kept import Report, kept_report
from analysis.plan import Group
from analysis.profiles import anchor, profiles
from analysis.provenance import provenance
from analysis.published import slips
from analysis.runs import Results, find, read
from analysis.searches import SearchView, search_views, searches_frame
from analysis.tables.accuracy import AccuracyTable, accuracy_table, table_frame
from analysis.tables.audit import TITLES, Audits, audit_frame, audit_table, read_audits
from analysis.tables.latex import to_latex
from analysis.tables.markdown import to_markdown, to_terminal
from analysis.tables.paper import (
    PaperTable,
    calibration_frame,
    nearest_readings,
    notes,
    paper_frame,
    paper_tables,
)
from analysis.tables.paper_text import printed, row_title
from analysis.tables.paper_text import to_latex as paper_latex
from analysis.tables.paper_text import to_markdown as paper_markdown
from analysis.tables.text import MARK_MEANINGS, MARK_SIGNS, percent, points
from trainables import names, theory


@dataclass(frozen=True)
class Surface:
    """The figures of one grid, as the page shows them."""

    figure3: Grid
    heatmaps: Grid
    suffix: str
    note: str
    figure3_image: Drawing
    heatmaps_image: Drawing
    widths_image: Drawing | None
    interactive: Markup


@dataclass(frozen=True)
class Overview:
    """The figures over all methods of one data set and backbone, as far as they are there."""

    group: Group
    tradeoff: Drawing | None
    curves: Drawing | None
    training: Drawing | None
    suffix: str


@dataclass(frozen=True)
class Effects:
    """An ablation as the page shows it."""

    found: Ablation
    image: Drawing


@dataclass(frozen=True)
class Searched:
    """A search as the page shows it."""

    view: SearchView
    image: Drawing


def write_report(
    tracking_uri: str,
    study: str,
    folder: Path,
    command: str,
    claims: Path | None = None,
    *,
    fresh: bool = False,
) -> Report:
    """Writes figures, tables and page of a study and logs them to its report run.

    Args:
        tracking_uri: Address of the MLflow server or database.
        study: Name of the experiment.
        folder: Where the files go; made if need be, files of the same names replaced.
        command: The command that asked for the report, for its provenance.
        claims: A file of claims to judge beside the paper's.
        fresh: Whether to read all anew, whatever was read before.

    Returns:
        What was written.

    Raises:
        NothingTracked: The server has no such study, or the study no plan.
        InvalidStudy: The file of claims has mistakes.
    """
    claimed = [*read_claims(), *(read_claims(claims) if claims else ())]
    tracked = find(tracking_uri, study, fresh=fresh)
    folder.mkdir(parents=True, exist_ok=True)

    def write() -> Report:
        return _write(read(tracked), folder, command, claimed, always=claims is not None)

    report = kept_report(tracked, repr((command, claims and claimed)), write, folder)
    for file in report.files:
        tracked.client.log_artifact(tracked.report_run, str(file), names.REPORT_FOLDER)
    return report


def _write(
    results: Results, folder: Path, command: str, claimed: Sequence[Claim], *, always: bool
) -> Report:
    groups, album = results.plan.groups, Album(folder, results.client.cache)
    audits = read_audits(results)
    tables = [accuracy_table(results, group, audits) for group in groups]
    verdicts = [audit_table(results, group, audits) for group in groups]
    beside = [table for group in groups for table in paper_tables(results, group, audits)]
    answers = [first_answer(results, group, audits) for group in groups]
    _write_tables(tables, album)
    _write_audits(results, audits, album)
    shown: dict[str, Any] = {
        "answers": answers,
        "tables": tables,
        "verdicts": verdicts,
        "calibration": _write_beside(beside, album),
        "claims": _write_claims(results, claimed, audits, album, always=always),
        "surfaces": _write_surfaces(results, album),
        "overviews": _write_overviews(results, album),
        "effects": _write_effects(results, album),
        "searches": _write_searches(results, album),
        "looks": look_closer(results, album),
        "property": _write_property(results, album),
        "profiles": [
            profile
            for table, audited in zip(tables, verdicts, strict=True)
            for profile in profiles(results, table, audited, album)
        ],
    }
    _write_verdicts(answers, album)
    album.draw()
    page = folder / "index.html"
    page.write_text(_page(results, command, album, beside=beside, **shown), encoding="utf-8")
    return Report(
        page=page,
        table="\n\n".join(to_terminal(table) for table in tables),
        missing=len(results.unfinished),
        files=(page, *album.files),
    )


def _write_verdicts(answers: Sequence[Answer], album: Album) -> None:
    """The first page's comparisons with all of their intervals; nothing where there are none."""
    frame = verdicts_frame({answer.group: answer.verdicts for answer in answers})
    if not frame.empty:
        album.add_data("verdicts", frame)


def _write_tables(tables: Sequence[AccuracyTable], album: Album) -> None:
    """The accuracy tables; nothing where nothing is trained."""
    if tables:
        album.add_text("table.md", to_markdown(tables))
        album.add_text("table.tex", to_latex(tables))
        album.add_data("table", table_frame(tables))


def _write_beside(tables: Sequence[PaperTable], album: Album) -> Drawing | None:
    """The paper's tables beside ours; nothing where the study has none of their columns."""
    if not tables:
        return None
    album.add_text("paper.md", paper_markdown(tables))
    album.add_text("paper.tex", paper_latex(tables))
    album.add_data("paper", paper_frame(tables))
    calibration = calibration_frame(tables)
    album.add_data("calibration", calibration)
    if calibration.empty:
        return None
    return album.add_figure("calibration", Drawing(draw_calibration, (calibration,)))


def _write_overviews(results: Results, album: Album) -> list[Overview]:
    """What all methods look like side by side, in every group that has something to draw."""
    shown = []
    for group in results.plan.groups:
        suffix = f"-{group.stem}" if len(results.plan.groups) > 1 else ""
        images: dict[str, Drawing | None] = dict.fromkeys(("tradeoff", "curves", "training"))
        for name, drawing, frame in _overviews(results, group):
            images[name] = album.add_figure(f"{name}{suffix}", drawing)
            album.add_data(f"{name}{suffix}", frame)
        if any(images.values()):
            shown.append(Overview(group, **images, suffix=suffix))
    return shown


def _overviews(results: Results, group: Group) -> Iterator[tuple[str, Drawing, pd.DataFrame]]:
    """Clean against robust accuracy; accuracy against eps and steps; how training went."""
    arms = [(arm.method, arm.label) for arm in shown_arms(results, group)]
    drawn = appearances(arms, method_colours(results.plan.methods))
    points, lines = tradeoff_frame(results, group), curves_frame(results, group)
    if not points.empty:
        headline = results.plan.protocol(group).headline_label
        yield "tradeoff", Drawing(draw_tradeoff, (points, drawn, headline)), points
    if not lines.empty and lines["accuracy"].notna().any():
        yield "curves", Drawing(draw_curves, (lines, drawn)), lines
    epochs = training_frame(results, group)
    if not epochs.empty:
        yield "training", Drawing(draw_training, (epochs, drawn)), epochs


def _write_property(results: Results, album: Album) -> Drawing | None:
    """Figure 5, where the study asks for it."""
    if "property" not in results.plan.figures:
        return None
    frame = property_frame()
    album.add_data("figure5", frame)
    return album.add_figure("figure5", Drawing(draw_property, (frame,)))


def _write_effects(results: Results, album: Album) -> list[Effects]:
    """Main effects and interactions of whatever the study varies; nothing where nothing does."""
    shown = []
    for found in ablations(results):
        drawing = Drawing(draw_effects, (found,))
        shown.append(Effects(found, album.add_figure(f"effects-{found.stem}", drawing)))
    if shown:
        album.add_data("effects", ablation_frame([effects.found for effects in shown]))
    return shown


def _write_searches(results: Results, album: Album) -> list[Searched]:
    """What was looked for and found; nothing where nothing was."""
    views = search_views(results.plan)
    if views:
        album.add_data("searches", searches_frame(views))
    return [
        Searched(view, album.add_figure(f"search-{view.stem}", Drawing(draw_history, (view,))))
        for view in views
    ]


def _write_claims(
    results: Results, claims: Sequence[Claim], audits: Audits, album: Album, *, always: bool
) -> list[Finding]:
    """The claims as these results have them; unless `always`, nothing where none speaks of any.

    Formulas are evaluated whatever the study is about: that alone is no reason to show claims.
    """
    findings = judge_claims(results, claims, audits)
    idle = all(each.verdict == NOT_RUN or each.reading == FORMULA for each in findings)
    if idle and not always and "property" not in results.plan.figures:
        return []
    album.add_data("claims", claims_frame(findings))
    return findings


def _write_audits(results: Results, audits: Audits, album: Album) -> None:
    """Every check with its numbers; nothing while no run has been audited."""
    frame = audit_frame(results, audits)
    if not frame.empty:
        album.add_data("audit", frame)


def _write_surfaces(results: Results, album: Album) -> list[Surface]:
    """Draws every grid of the study; several are told apart by their files' names."""
    pairs = list(surfaces(results.plan))
    colours = method_colours(results.plan.methods)
    shown = []
    for index, (group, method) in enumerate(pairs):
        protocol = results.plan.protocol(group)
        figure3 = grid(results, group, method, figure3_measures(protocol))
        heatmaps = grid(results, group, method, all_measures(protocol))
        suffix = f"-{figure3.stem}" if len(pairs) > 1 else ""
        album.add_data(f"figure3{suffix}", figure3.frame)
        album.add_data(f"heatmaps{suffix}", heatmaps.frame)
        widths = None
        if heatmaps.seeds > 1:
            widths = album.add_figure(f"widths{suffix}", Drawing(draw_widths, (heatmaps,)))
        shown.append(
            Surface(
                figure3=figure3,
                heatmaps=heatmaps,
                suffix=suffix,
                note=choice_note(figure3.choice) if figure3.choice else "",
                figure3_image=album.add_figure(
                    f"figure3{suffix}", Drawing(draw_figure3, (figure3, colours))
                ),
                heatmaps_image=album.add_figure(
                    f"heatmaps{suffix}", Drawing(draw_heatmaps, (heatmaps,))
                ),
                widths_image=widths,
                interactive=_interactive(results, heatmaps, suffix, with_library=index == 0),
            )
        )
    return shown


def _interactive(results: Results, data: Grid, suffix: str, *, with_library: bool) -> Markup:
    """The surface to turn, opened at the headline; the library comes with the first one."""
    headline = results.plan.protocol(data.group).headline_metrics
    first = headline[0] if len(headline) == 1 else names.ROBUST
    figure = interactive_surface(data, method_colours(results.plan.methods), first=first)
    return Markup(
        plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=with_library,
            div_id=f"interactive{suffix}",
            config={"displaylogo": False, "responsive": True},
        )
    )


def _page(
    results: Results,
    command: str,
    album: Album,
    *,
    beside: Sequence[PaperTable],
    claims: Sequence[Finding],
    **shown: Any,
) -> str:
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    calibrations = calibration_frame(beside)
    tallied = tally([finding for finding in claims if finding.verdict != NOT_RUN])
    environment.filters.update(percent=percent, points=points, coded=_coded, inlined=album.inlined)
    return environment.get_template("report.html.j2").render(
        plan=results.plan,
        anchor=anchor,
        tallied=tallied,
        verdicts_of_claims=sorted(set().union(*tallied.values())),
        reading_titles=READING_TITLES,
        beside=[(table, list(notes(table))) for table in beside],
        calibrations=calibrations.to_dict("records"),
        nearest=list(nearest_readings(calibrations)),
        row_title=row_title,
        printed=printed,
        level_text=level_text,
        titles=TITLES,
        signs=MARK_SIGNS,
        meanings=MARK_MEANINGS,
        theory=theory,
        unfinished=results.unfinished.to_dict("records"),
        provenance=provenance(results, command),
        study_file=results.study_file,
        claims=claims,
        bibtex=bibtex(
            results.plan.study,
            results.study_file,
            results.plan.provenance.get("git", "unknown"),
        ),
        repeat=repeat(results, command),
        slips=slips.TEXT,
        **shown,
    )


def _coded(text: str) -> Markup:
    """Text in which what stands in backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
