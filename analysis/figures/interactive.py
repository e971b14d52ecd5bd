"""The surface to turn and to read values from; needs no network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from analysis.figures.grid import Grid, Measure, alone
from analysis.figures.style import CHOICE_COLOUR, tint
from analysis.figures.surface import accuracy_limits, choice_text, seeds_of
from analysis.plan import axis_label
from analysis.tables.text import percent

_TRACES = 4  # a measure: surface, points beside it, plane, mark
_CLEAR = "rgba(0,0,0,0)"  # the page's own ground, light or dark
# Dark on light in both schemes: plotly fixes the colour of a pressed button.
_MENU = {"y": 1.09, "yanchor": "top", "bgcolor": "#e3e7ec", "font": {"color": "#1b1e23"}}


def interactive_surface(grid: Grid, colours: dict[str, str], *, first: str) -> go.Figure:
    """One measure at a time, chosen from a menu; accuracies in percent.

    Args:
        grid: The data.
        colours: Method -> colour.
        first: The column of the measure that is shown until another is chosen.
    """
    shown = [measure.column for measure in grid.measures].index(first)
    figure = go.Figure()
    for index, measure in enumerate(grid.measures):
        for trace in _traces(grid, measure, colours):
            figure.add_trace(trace.update(visible=index == shown))
    limits = accuracy_limits(grid)
    figure.update_layout(
        height=620,
        margin={"l": 0, "r": 0, "t": 60, "b": 0},
        paper_bgcolor=_CLEAR,
        modebar={"bgcolor": _CLEAR, "orientation": "v"},
        legend={"orientation": "h", "y": 0.0},
        updatemenus=[_measure_menu(grid, shown), _range_menu(limits)],
        scene={
            "xaxis": _axis(grid, grid.x),
            "yaxis": _axis(grid, grid.y),
            "zaxis": {"title": {"text": "accuracy (%)"}, "range": limits},
            "aspectmode": "cube",
            "camera": {
                "eye": {"x": -1.45, "y": -1.65, "z": 0.75},
                "center": {"x": 0, "y": 0, "z": -0.15},
            },
        },
    )
    return figure


def _axis(grid: Grid, axis: str) -> dict[str, object]:
    ticks = sorted(grid.frame[axis].unique())
    return {"title": {"text": axis_label(axis)}, "tickvals": ticks}


def _measure_menu(grid: Grid, shown: int) -> dict[str, object]:
    buttons = [_button(grid, index) for index in range(len(grid.measures))]
    return {"buttons": buttons, "active": shown, "x": 0, "xanchor": "left", **_MENU}


def _range_menu(limits: tuple[float, float]) -> dict[str, object]:
    """One accuracy axis for all measures, so that noise looks small; or fitted to each."""
    common = {"scene.zaxis.range": limits, "scene.zaxis.autorange": False}
    buttons = [
        {"label": "common axis", "method": "relayout", "args": [common]},
        {"label": "fitted axis", "method": "relayout", "args": [{"scene.zaxis.autorange": True}]},
    ]
    place = {"type": "buttons", "direction": "right", "x": 0.94, "xanchor": "right"}
    return {"buttons": buttons, "active": 0, **place, **_MENU}


def _button(grid: Grid, shown: int) -> dict[str, object]:
    measure = grid.measures[shown]
    visible = [trace // _TRACES == shown for trace in range(_TRACES * len(grid.measures))]
    label = f"{measure.title}: {measure.detail}"
    return {"label": label, "method": "update", "args": [{"visible": visible}]}


def _traces(grid: Grid, measure: Measure, colours: dict[str, str]) -> list[go.Surface]:
    """Surface, points beside it, plane and choice; what is missing is there without points."""
    values = 100 * grid.values(measure)
    reference = grid.reference(measure)
    plane_colour = colours.get(grid.baseline, "grey")
    x, y = values.columns.to_numpy(), values.index.to_numpy()
    place = f"{axis_label(grid.x)} %{{x}}, {axis_label(grid.y)} %{{y}}: %{{z:.1f}} %"
    surface = go.Surface(
        x=x,
        y=y,
        z=values.to_numpy(dtype=float),
        name=f"{grid.method}, {seeds_of(grid)}",
        colorscale=[[0, tint(colours[grid.method], 0.35)], [1, colours[grid.method]]],
        showscale=False,
        showlegend=True,
        contours={"x": _grid_lines(x), "y": _grid_lines(y)},
        hovertemplate=place,
    )
    plane = go.Surface(
        x=x,
        y=y,
        z=np.full(values.shape, 100 * reference.mean),
        name=f"{grid.baseline} {percent(reference)} %",
        colorscale=[[0, plane_colour], [1, plane_colour]],
        opacity=0.45,
        showscale=False,
        showlegend=not reference.is_missing,
    )
    lone = np.concatenate([alone(values), grid.beside(measure) * (1, 1, 100)])
    dots = go.Scatter3d(
        x=lone[:, 0],
        y=lone[:, 1],
        z=lone[:, 2],
        mode="markers",
        marker={"size": 5, "color": colours[grid.method]},
        showlegend=False,
        hovertemplate=place,
        name=grid.method,
    )
    return [surface, dots, plane, _mark(grid, measure)]


def _grid_lines(values: npt.NDArray[np.float64]) -> dict[str, object]:
    step = (values[-1] - values[0]) / (len(values) - 1)
    return {"show": True, "color": "#444", "start": values[0], "end": values[-1], "size": step}


def _mark(grid: Grid, measure: Measure) -> go.Scatter3d:
    rows = grid.chosen(measure)
    return go.Scatter3d(
        x=rows[grid.x],
        y=rows[grid.y],
        z=100 * rows["accuracy"],
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": 7,
            "color": CHOICE_COLOUR,
            "line": {"color": "black", "width": 2},
        },
        name=choice_text(grid),
        showlegend=not rows.empty,
    )
