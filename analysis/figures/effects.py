"""Main effects with their intervals, a panel a factor, and a map of each interaction."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.ablation import Ablation
from analysis.figures.style import MOST_WRITTEN, PALETTE, style, ticks

_PANEL = (3.3, 2.9)  # inches
_COLUMNS = 4
_DIVERGING = "PuOr"  # safe for colour-blind readers; its middle is no effect


def draw_effects(found: Ablation) -> Figure:
    """Draws every term of an ablation, effects in points."""
    terms = list(found.shares)
    columns = min(_COLUMNS, len(terms))
    rows = math.ceil(len(terms) / columns)
    with style():
        size = (_PANEL[0] * columns, _PANEL[1] * rows + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes, term in zip(panels, terms, strict=False):
            if len(term) == 1:
                _main(axes, found, term[0])
            else:
                _interaction(figure, axes, found, term)
            share = 100 * found.shares[term]
            axes.set_title(f"{' × '.join(term)}: {share:.0f} % of the variance")
        for axes in list(panels):
            axes.set_visible(False)
        seeds = "one seed: no interval" if found.seeds == 1 else f"{found.seeds} seeds"
        figure.suptitle(f"Effects on headline accuracy, {found.title}, {seeds}", fontsize=9)
    return figure


def _main(axes: Axes, found: Ablation, factor: str) -> None:
    effects = found.of(factor)
    levels = [effect.levels[0] for effect in effects]
    worded = any(isinstance(level, str) for level in levels)
    places = list(range(len(levels))) if worded else [float(level) for level in levels]
    means = [100 * effect.estimate.mean for effect in effects]
    halves = np.nan_to_num([100 * effect.estimate.half_width for effect in effects])
    line = "none" if worded else "-"
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.errorbar(
        places, means, yerr=halves, color=PALETTE[0], marker="o", ms=4, capsize=3, linestyle=line
    )
    shown, texts = ticks(levels)
    axes.set_xticks([places[index] for index in shown], texts)
    if worded:
        axes.tick_params(axis="x", rotation=60)
    axes.set(xlabel=factor, ylabel="effect (points)")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _interaction(figure: Figure, axes: Axes, found: Ablation, term: tuple[str, ...]) -> None:
    """Effects that differ from zero for certain, interval by interval, are bold."""
    first, second = (found.levels[factor] for factor in term)
    effects = found.of(*term)
    values = np.array([100 * effect.estimate.mean for effect in effects])
    bound = max(float(np.abs(values).max()), 1e-9)
    grid = values.reshape(len(first), len(second)).T
    image = axes.imshow(
        grid, cmap=_DIVERGING, vmin=-bound, vmax=bound, origin="lower", aspect="auto"
    )
    for effect in effects if max(grid.shape) <= MOST_WRITTEN else ():
        x, y = first.index(effect.levels[0]), second.index(effect.levels[1])
        value = 100 * effect.estimate.mean
        axes.text(
            x,
            y,
            f"{value:+.1f}",
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if abs(value) > 0.6 * bound else "black",
            weight="bold" if effect.estimate.excludes_zero else "normal",
        )
    axes.set_xticks(*ticks(first), rotation=60)
    axes.set_yticks(*ticks(second))
    axes.set(xlabel=term[0], ylabel=term[1])
    figure.colorbar(image, ax=axes, label="interaction (points)")
