"""Surfaces and heat maps: their data, and that the drawing shows it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from analysis.figures.files import Drawing
from analysis.figures.grid import (
    Grid,
    Measure,
    all_measures,
    alone,
    figure3_measures,
    grid,
    surfaces,
)
from analysis.figures.heatmap import draw_heatmap, draw_heatmaps, draw_widths
from analysis.figures.interactive import interactive_surface
from analysis.figures.style import method_colours
from analysis.figures.surface import accuracy_limits, draw_figure3, draw_surface
from analysis.plan import Group, Plan
from analysis.runs import Results
from trainables import names

from .tracked_study import CE_RAW, DEEPFOOL, DEPLOYED, MARGIN_RAW, WEAK

COLOURS = {"sce": "#0072B2", "isce": "#CC79A7"}


@pytest.fixture(scope="module")
def figure3(small: Results, group: Group) -> Grid:
    """The data of Figure 3."""
    return grid(small, group, "isce", figure3_measures(small.plan.protocol(group)))


@pytest.fixture(scope="module")
def every(small: Results, group: Group) -> Grid:
    """The data of the heat maps."""
    return grid(small, group, "isce", all_measures(small.plan.protocol(group)))


def test_panels_are_the_strongest_settings(figure3: Grid) -> None:
    shown = [(measure.title, measure.column) for measure in figure3.measures]
    assert shown[:3] == [
        ("DeepFool", DEEPFOOL),
        ("PGD untargeted", names.ROBUST),
        ("PGD untargeted", DEPLOYED),
    ]
    assert shown[3][0] == "PGD targeted"
    assert figure3.measures[3].detail == "ε = 0.04 l2_rms, 20 steps, worst of 2 raw surfaces"
    assert shown[4] == ("Clean", names.CLEAN)


def test_attack_without_raw_surfaces_is_shown_all_the_same(small: Results, group: Group) -> None:
    protocol = small.plan.protocol(group)
    gone = {DEEPFOOL, CE_RAW, MARGIN_RAW, WEAK}
    cells = tuple(
        replace(cell, surface="scores") if cell.name == DEPLOYED else cell
        for cell in protocol.cells
        if cell.name not in gone
    )
    shown = figure3_measures(replace(protocol, cells=cells))
    assert [measure.column for measure in shown if "untargeted" in measure.title] == [DEPLOYED]


def test_values_stand_at_their_points_and_holes_stay_open(figure3: Grid) -> None:
    headline = figure3.values(figure3.measures[1])
    np.testing.assert_array_equal(headline.columns.to_numpy(), [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(headline.index.to_numpy(), [0.05, 0.1])
    expected = [[0.2, 0.3, 0.8], [math.nan, 0.5, 0.6]]
    np.testing.assert_allclose(headline.to_numpy(), expected)
    assert figure3.holes == 1


def test_targeted_worst_case_is_per_image(figure3: Grid) -> None:
    targeted = figure3.values(figure3.measures[3])
    expected = [[0.1, 0.2, 0.7], [math.nan, 0.4, 0.5]]
    np.testing.assert_allclose(targeted.to_numpy(), expected, atol=1e-12)
    assert figure3.reference(figure3.measures[3]).mean == pytest.approx(0.4)


def test_reference_is_the_baselines_mean_over_seeds(figure3: Grid) -> None:
    reference = figure3.reference(figure3.measures[1])
    assert reference.mean == pytest.approx(0.5)
    assert reference.seeds == 3
    assert reference.half_width == pytest.approx(0.24841, abs=1e-5)


def test_values_are_means_over_seeds(small: Results, group: Group) -> None:
    again = small.rows(group, "isce").assign(seed=1)
    again[names.ROBUST] += 0.1
    frame = pd.concat([small.frame, again])
    results = Results(small.plan, frame, "", small.report_run, small.client)
    headline = Measure(names.ROBUST, "Headline")
    data = grid(results, group, "isce", [headline])
    assert data.seeds == 2
    np.testing.assert_allclose(data.values(headline).loc[0.05], [0.25, 0.35, 0.85])


def test_mark_is_validations_choice_not_the_test_maximum(figure3: Grid) -> None:
    chosen = figure3.chosen(figure3.measures[1])
    assert chosen[["loss.s", "loss.m", "accuracy"]].to_numpy().tolist() == [[1.5, 0.1, 0.5]]


def test_heat_maps_show_every_test_cell(every: Grid, small: Results, group: Group) -> None:
    columns = [measure.column for measure in every.measures]
    assert columns == [
        *(cell.metric for cell in small.plan.protocol(group).test_attacks),
        names.ROBUST,
        names.CLEAN,
    ]
    assert {CE_RAW, MARGIN_RAW, DEPLOYED, DEEPFOOL} < set(columns)


def test_limits_are_whole_tens_that_hold_all(figure3: Grid, every: Grid) -> None:
    assert accuracy_limits(figure3) == (10.0, 90.0)
    assert accuracy_limits(every) == (10.0, 90.0)


def test_surface_draws_faces_plane_and_star(figure3: Grid) -> None:
    axes = Figure().add_subplot(projection="3d")
    measure = figure3.measures[1]
    drawn = draw_surface(axes, figure3, measure, colours=COLOURS, limits=(0, 100))
    assert drawn is axes
    (faces,) = [child for child in axes.collections if isinstance(child, Poly3DCollection)]
    # Two cells in the grid: one touches the hole and is left out; the plane has both.
    corners = np.asarray(faces._faces)  # no public accessor
    assert len(corners) == 3
    assert corners[1:, :, 2] == pytest.approx(50.0)
    star = axes.lines[-1]
    assert [float(values[0]) for values in star.get_data_3d()] == [1.5, 0.1, 50.0]


def test_points_that_no_face_touches_are_dots(figure3: Grid) -> None:
    measure = figure3.measures[1]
    assert alone(100 * figure3.values(measure)).tolist() == [[1.0, 0.05, 20.0]]
    axes = Figure().add_subplot(projection="3d")
    draw_surface(axes, figure3, measure, colours=COLOURS, limits=(10, 90))
    drop, dot, *_ = axes.lines
    assert [list(along) for along in drop.get_data_3d()] == [[1, 1], [0.05, 0.05], [10, 20]]
    assert [list(along) for along in dot.get_data_3d()] == [[1], [0.05], [20]]
    shown = interactive_surface(figure3, COLOURS, first=measure.column).data[4 + 1]
    assert (list(shown.x), list(shown.y), list(shown.z)) == ([1], [0.05], [20])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**25 - 1))
@settings(deadline=None, derandomize=True)
def test_every_point_is_on_a_face_or_a_dot(rows: int, columns: int, holes: int) -> None:
    known = [[bool(holes >> (5 * row + column) & 1) for column in range(5)] for row in range(5)]
    values = pd.DataFrame(np.where(known, 1.0, math.nan)).iloc[:rows, :columns]
    on_faces = {
        (x + right, y + up)
        for y, x in itertools.product(range(rows - 1), range(columns - 1))
        if values.iloc[y : y + 2, x : x + 2].notna().all(axis=None)
        for right, up in itertools.product((0, 1), repeat=2)
    }
    dots = {(int(x), int(y)) for x, y, _ in alone(values)}
    assert not dots & on_faces
    assert dots | on_faces == {(x, y) for y in range(rows) for x in range(columns) if known[y][x]}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_legends_stay_within_the_figure_and_off_all_else(every: Grid, count: int) -> None:
    few = replace(every, measures=every.measures[:count])
    for figure in (draw_figure3(few, COLOURS), draw_heatmaps(few), draw_widths(few)):
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        for other in [*figure.axes, *figure.texts]:
            assert not box.overlaps(other.get_tightbbox() or other.get_window_extent())
        for note, axes in itertools.product(figure.texts, figure.axes):
            assert not note.get_window_extent().overlaps(axes.get_tightbbox())
    scale = figure.axes[-1].get_tightbbox()
    assert scale.x1 <= figure.bbox.x1


def test_figure_has_a_panel_a_measure_and_says_what_is_open(figure3: Grid) -> None:
    figure = draw_figure3(figure3, COLOURS)
    assert len(figure.axes) == len(figure3.measures)
    assert figure.axes[1].get_title().endswith("worst of 2 raw surfaces; sce 50.0 %")
    (note,) = [text.get_text() for text in figure.texts]
    assert "share one accuracy axis, 10 to 90 %" in note
    assert "Points without a result, left open: 1." in note
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "isce, one seed (exploratory)",
        "sce, mean of 3 seeds (plane)",
        "chosen on validation: isce s=1.5 m=0.1",
    ]


def test_heat_map_writes_every_value(every: Grid) -> None:
    axes = Figure().add_subplot()
    measure = next(m for m in every.measures if m.column == names.ROBUST)
    draw_heatmap(axes, every, measure)
    written = [text.get_text() for text in axes.texts]
    assert written == ["20.0", "30.0", "80.0", "—", "50.0", "60.0"]


def test_heat_map_stars_the_choice_beside_its_value(every: Grid) -> None:
    axes = Figure().add_subplot()
    elsewhere = (every.frame["loss.s"] == 2.0) & (every.frame["loss.m"] == 0.05)
    chosen = replace(every, frame=every.frame.assign(chosen=elsewhere))
    draw_heatmap(axes, chosen, every.measures[0])
    (star,) = axes.lines
    drawn = star.get_transform().transform(star.get_xydata())
    (place,) = axes.transData.inverted().transform(drawn)
    assert np.round(place).tolist() == [2, 0]
    assert (place > [2, 0]).all()


def test_equal_figures_are_equal_files(every: Grid) -> None:
    drawing = Drawing(draw_heatmaps, (every,))
    first, second = (drawing.files(["png", "pdf", "svg"]) for _ in range(2))
    assert first == second
    png, pdf, svg = first
    assert png.startswith(b"\x89PNG")
    assert b"CreationDate" not in pdf
    assert b"<dc:date>" not in svg


def test_interactive_surface_opens_at_the_headline(every: Grid) -> None:
    figure = interactive_surface(every, COLOURS, first=names.ROBUST)
    surface, _, plane, mark = [trace for trace in figure.data if trace.visible]
    np.testing.assert_allclose(surface.z, np.array([[20, 30, 80], [math.nan, 50, 60]]))
    assert np.unique(plane.z) == pytest.approx([50.0])
    assert (list(mark.x), list(mark.y), list(mark.z)) == ([1.5], [0.1], [50.0])
    assert len(figure.layout.updatemenus[0].buttons) == len(every.measures)


def test_studies_without_two_swept_numbers_have_no_surface(small: Results, flat: Results) -> None:
    assert [method for _, method in surfaces(small.plan)] == ["isce"]
    assert list(surfaces(flat.plan)) == []
    line = Plan({**small.plan.raw, "axes": {"isce": {"loss.s": [1, 2], "loss.m": [0.1]}}})
    assert list(surfaces(line)) == []


def test_no_surface_where_a_point_would_be_several_configurations(small: Results) -> None:
    doubled = [{**trial, "arm": f"other {trial['arm']}"} for trial in small.plan.trials]
    plan = Plan({**small.plan.raw, "trials": [*small.plan.trials, *doubled]})
    assert list(surfaces(plan)) == []


def test_no_baseline_no_plane(small: Results, group: Group) -> None:
    plan = Plan({**small.plan.raw, "baseline": None, "choose": []})
    bare = Results(plan, small.frame, "", small.report_run, small.client)
    data = grid(bare, group, "isce", all_measures(plan.protocol(group)))
    assert data.reference(data.measures[0]).is_missing
    assert data.chosen(data.measures[0]).empty
    figure = draw_figure3(data, COLOURS)
    assert len(figure.legends[0].get_texts()) == 1


def test_a_method_keeps_its_colour() -> None:
    colours = method_colours(["sce", "a", "isce"])
    assert colours["sce"] == COLOURS["sce"]
    assert len(set(colours.values())) == 3


@pytest.fixture
def refined(small: Results, group: Group) -> Results:
    """The study with two seeds of a point between (1, 0.05) and (1.5, 0.05)."""
    row = small.rows(group, "isce").iloc[[0]]
    between = [
        row.assign(seed=seed, arm="between", label="isce s=1.25 m=0.05", **{"loss.s": 1.25})
        for seed in (0, 1)
    ]
    frame = pd.concat([small.frame, *between], ignore_index=True)
    return Results(small.plan, frame, "", small.report_run, small.client)


HEADLINE = Measure(names.ROBUST, "Headline")


def test_refined_points_stand_beside_the_grid(
    figure3: Grid, refined: Results, group: Group
) -> None:
    data = grid(refined, group, "isce", [HEADLINE])
    pd.testing.assert_frame_equal(
        data.values(HEADLINE), figure3.values(figure3.measures[1]), check_names=False
    )
    assert data.beside(HEADLINE).tolist() == [[1.25, 0.05, 0.2]]
    assert not len(figure3.beside(figure3.measures[1]))
    assert data.frame["refined"].sum() == 1


def test_refined_points_are_dots_in_every_drawing(refined: Results, group: Group) -> None:
    data = grid(refined, group, "isce", [HEADLINE])
    figure = draw_figure3(data, COLOURS)
    dots = [
        tuple(float(value[0]) for value in line.get_data_3d())
        for line in figure.axes[0].get_lines()
        if line.get_marker() == "o"
    ]
    assert (1.25, 0.05, 20.0) in [tuple(round(value, 6) for value in dot) for dot in dots]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["isce, mean of 1 to 2 seeds", "isce, refined"]
    heat = draw_heatmaps(data).axes[0]
    (place,) = heat.collections[-1].get_offsets().tolist()
    assert place == [0.5, 0.0]  # halfway between two cells of the lower row
    turning = interactive_surface(data, COLOURS, first=names.ROBUST)
    assert list(turning.data[1].x)[-1:] == [1.25]
    assert list(turning.data[1].z)[-1:] == [20.0]


def test_validation_may_choose_a_refined_point(refined: Results, group: Group) -> None:
    frame = refined.frame.copy()
    frame.loc[frame["arm"] == "between", names.ROBUST_VAL] = 0.9
    chosen = Results(refined.plan, frame, "", refined.report_run, refined.client)
    data = grid(chosen, group, "isce", [HEADLINE])
    assert data.chosen(HEADLINE)["loss.s"].tolist() == [1.25]
    draw_heatmaps(data)
    draw_figure3(data, COLOURS)


def test_what_matters_is_asked_of_the_grid_alone(refined: Results, group: Group) -> None:
    rows = refined.on_grid(group, "isce")
    assert set(rows["loss.s"]) == {1.0, 1.5, 2.0}
    assert len(rows) == len(refined.rows(group, "isce")) - 2
