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
from analysis.figures.files import Drawing, inlined, save_data, save_kept
from analysis.figures.grid import Grid, all_measures, figure3_measures, grid, surfaces
from analysis.figures.heatmap import draw_heatmaps, draw_widths
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
    figure3_image: str
    heatmaps_image: str
    widths_image: str
    interactive: Markup


@dataclass(frozen=True)
class Overview:
    """The figures over all methods of one data set and backbone; empty ones are not there."""

    group: Group
    tradeoff: str
    curves: str
    training: str
    suffix: str


@dataclass(frozen=True)
class Effects:
    """An ablation as the page shows it."""

    found: Ablation
    image: str


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
    audits = read_audits(results)
    tables = [accuracy_table(results, group, audits) for group in results.plan.groups]
    verdicts = [audit_table(results, group, audits) for group in results.plan.groups]
    beside = [
        table for group in results.plan.groups for table in paper_tables(results, group, audits)
    ]
    files = [*_write_tables(tables, folder), *_write_audits(results, audits, folder)]
    files += _write_beside(results, beside, folder)
    answers = [first_answer(results, group, audits) for group in results.plan.groups]
    files += _write_verdicts(answers, folder)
    findings, judged = _write_claims(results, claimed, audits, folder, always=always)
    files += judged
    shown, drawn = _write_surfaces(results, folder)
    overviews, overviewed = _write_overviews(results, folder)
    effects, ablated = _write_effects(results, folder)
    looks, looked_at = look_closer(results, folder)
    drawn += _write_property(results, folder)
    calibration = folder / "calibration.svg"
    page = folder / "index.html"
    page.write_text(
        _page(
            results,
            command,
            answers=answers,
            tables=tables,
            verdicts=verdicts,
            profiles=[
                profile
                for table, audited in zip(tables, verdicts, strict=True)
                for profile in profiles(results, table, audited)
            ],
            beside=beside,
            calibration=inlined(calibration) if calibration in files else "",
            claims=findings,
            overviews=overviews,
            surfaces=shown,
            effects=effects,
            looks=looks,
            property=inlined(folder / "figure5.svg") if "property" in results.plan.figures else "",
        ),
        encoding="utf-8",
    )
    files = [page, *files, *overviewed, *ablated, *drawn, *looked_at]
    return Report(
        page=page,
        table="\n\n".join(to_terminal(table) for table in tables),
        missing=len(results.unfinished),
        files=tuple(files),
    )


def _write_verdicts(answers: Sequence[Answer], folder: Path) -> list[Path]:
    """The first page's comparisons with all of their intervals; nothing where there are none."""
    frame = verdicts_frame({answer.group: answer.verdicts for answer in answers})
    return [] if frame.empty else [save_data(frame, folder, "verdicts")]


def _write_tables(tables: Sequence[AccuracyTable], folder: Path) -> list[Path]:
    """The accuracy tables; nothing where nothing is trained."""
    if not tables:
        return []
    texts = {
        "table.md": to_markdown(tables),
        "table.tex": to_latex(tables),
        "table.csv": table_frame(tables).to_csv(index=False),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _write_beside(results: Results, tables: Sequence[PaperTable], folder: Path) -> list[Path]:
    """The paper's tables beside ours; nothing where the study has none of their columns."""
    if not tables:
        return []
    texts = {"paper.md": paper_markdown(tables), "paper.tex": paper_latex(tables)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    frames = {"paper": paper_frame(tables), "calibration": calibration_frame(tables)}
    data = [save_data(frame, folder, stem) for stem, frame in frames.items()]
    if not frames["calibration"].empty:
        drawing = Drawing(draw_calibration, (frames["calibration"],))
        data += save_kept(results.client.cache, drawing, folder, "calibration")
    return [*(folder / name for name in texts), *data]


def _write_overviews(results: Results, folder: Path) -> tuple[list[Overview], list[Path]]:
    """What all methods look like side by side, in every group that has something to draw."""
    shown, files = [], list[Path]()
    for group in results.plan.groups:
        suffix = f"-{group.stem}" if len(results.plan.groups) > 1 else ""
        images = dict.fromkeys(("tradeoff", "curves", "training"), "")
        for name, drawing, frame in _overviews(results, group):
            stem = f"{name}{suffix}"
            files += save_kept(results.client.cache, drawing, folder, stem)
            files.append(save_data(frame, folder, stem))
            images[name] = inlined(folder / f"{stem}.svg")
        if any(images.values()):
            shown.append(Overview(group, **images, suffix=suffix))
    return shown, files


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


def _write_property(results: Results, folder: Path) -> list[Path]:
    """Figure 5, where the study asks for it."""
    if "property" not in results.plan.figures:
        return []
    frame = property_frame()
    return [
        *save_kept(results.client.cache, Drawing(draw_property, (frame,)), folder, "figure5"),
        save_data(frame, folder, "figure5"),
    ]


def _write_effects(results: Results, folder: Path) -> tuple[list[Effects], list[Path]]:
    """Main effects and interactions of whatever the study varies; nothing where nothing does."""
    shown, files, cache = [], list[Path](), results.client.cache
    for found in ablations(results):
        stem = f"effects-{found.stem}"
        files += save_kept(cache, Drawing(draw_effects, (found,)), folder, stem)
        shown.append(Effects(found, inlined(folder / f"{stem}.svg")))
    if shown:
        frame = ablation_frame([effects.found for effects in shown])
        files.append(save_data(frame, folder, "effects"))
    return shown, files


def _write_claims(
    results: Results, claims: Sequence[Claim], audits: Audits, folder: Path, *, always: bool
) -> tuple[list[Finding], list[Path]]:
    """The claims as these results have them; unless `always`, nothing where none speaks of any.

    Formulas are evaluated whatever the study is about: that alone is no reason to show claims.
    """
    findings = judge_claims(results, claims, audits)
    idle = all(each.verdict == NOT_RUN or each.reading == FORMULA for each in findings)
    if idle and not always and "property" not in results.plan.figures:
        return [], []
    return findings, [save_data(claims_frame(findings), folder, "claims")]


def _write_audits(results: Results, audits: Audits, folder: Path) -> list[Path]:
    """Every check with its numbers; nothing while no run has been audited."""
    frame = audit_frame(results, audits)
    return [] if frame.empty else [save_data(frame, folder, "audit")]


def _write_surfaces(results: Results, folder: Path) -> tuple[list[Surface], list[Path]]:
    """Draws every grid of the study; several are told apart by their files' names."""
    pairs = list(surfaces(results.plan))
    colours = method_colours(results.plan.methods)
    shown, files = [], []
    for index, (group, method) in enumerate(pairs):
        protocol = results.plan.protocol(group)
        figure3 = grid(results, group, method, figure3_measures(protocol))
        heatmaps = grid(results, group, method, all_measures(protocol))
        suffix = f"-{figure3.stem}" if len(pairs) > 1 else ""
        stems = f"figure3{suffix}", f"heatmaps{suffix}"
        widths = f"widths{suffix}"
        drawings = {
            stems[0]: Drawing(draw_figure3, (figure3, colours)),
            stems[1]: Drawing(draw_heatmaps, (heatmaps,)),
        }
        if heatmaps.seeds > 1:
            drawings[widths] = Drawing(draw_widths, (heatmaps,))
        for stem, drawing in drawings.items():
            files += save_kept(results.client.cache, drawing, folder, stem)
        files += [
            save_data(data.frame, folder, stem)
            for data, stem in zip((figure3, heatmaps), stems, strict=True)
        ]
        shown.append(
            Surface(
                figure3=figure3,
                heatmaps=heatmaps,
                suffix=suffix,
                note=choice_note(figure3.choice) if figure3.choice else "",
                figure3_image=inlined(folder / f"{stems[0]}.svg"),
                heatmaps_image=inlined(folder / f"{stems[1]}.svg"),
                widths_image=inlined(folder / f"{widths}.svg") if heatmaps.seeds > 1 else "",
                interactive=_interactive(results, heatmaps, suffix, with_library=index == 0),
            )
        )
    return shown, files


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
    environment.filters.update(percent=percent, points=points, coded=_coded)
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
        bibtex=bibtex(results),
        repeat=repeat(results, command),
        slips=slips.TEXT,
        **shown,
    )


def _coded(text: str) -> Markup:
    """Text in which what stands in backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
