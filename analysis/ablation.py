"""Which of a study's choices matter: main effects, interactions, and importance by fANOVA."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import optuna
import pandas as pd

from analysis.cache import Cache
from analysis.choice import shown_arms
from analysis.plan import Group, axis_label
from analysis.runs import Results
from analysis.statistics import Estimate, estimate
from trainables import names

_FEWEST = 4  # points below which there is nothing to tell apart
# Of the forest: optuna's own number up to so many points, and on more points fewer, larger trees.
_TREES, _FEWEST_TREES, _TREES_UP_TO = 64, 8, 400
_Point = tuple[Any, ...]


@dataclass(frozen=True)
class Effect:
    """What one level, or one pair of levels, does to the headline.

    Attributes:
        factors: One for a main effect, two for an interaction.
        levels: Theirs.
        estimate: Of the effect; mean and t interval over seeds, a fraction.
    """

    factors: tuple[str, ...]
    levels: _Point
    estimate: Estimate


@dataclass(frozen=True)
class Ablation:
    """The effects of everything that varies over a complete design.

    Attributes:
        title: Whose, and where.
        stem: What tells its files from those of others.
        levels: Each factor's, in order.
        effects: Main effects, then interactions of two.
        shares: Term -> its share of the variance between points: the exact functional ANOVA
            of a complete design. What is left belongs to interactions of three and more.
        importance: Factor -> fANOVA of a random forest (Hutter et al. 2014), which takes
            interactions in with the factors they are of.
        seeds: How many have every point.
        left_out: Seeds that lack a point.
    """

    title: str
    stem: str
    levels: Mapping[str, tuple[Any, ...]]
    effects: tuple[Effect, ...]
    shares: Mapping[tuple[str, ...], float]
    importance: Mapping[str, float]
    seeds: int
    left_out: int

    @property
    def factors(self) -> tuple[str, ...]:
        """What varies."""
        return tuple(self.levels)

    def of(self, *factors: str) -> list[Effect]:
        """The effects of one term."""
        return [effect for effect in self.effects if effect.factors == factors]


def ablations(results: Results) -> Iterator[Ablation]:
    """One of each tuned method's swept axes, and one of methods, data sets and backbones.

    The value is headline accuracy on test images; nothing is chosen by it.
    """
    plan = results.plan
    for group in plan.groups:
        for method in plan.methods:
            axes = {axis: axis_label(axis) for axis in plan.axes(method)}
            rows = results.on_grid(group, method).rename(columns=axes)
            found = ablation(rows, list(axes.values()), names.ROBUST, results.client.cache)
            if found:
                where = f"{method} on {group}"
                yield _named(found, where, f"{method}-{group.stem}")
    if len(plan.groups) > 1:
        rows = pd.concat([_methods(results, group) for group in plan.groups], ignore_index=True)
        found = ablation(rows, ["method", "dataset", "backbone"], names.ROBUST)
        if found:
            yield _named(found, "all methods", "methods")


def ablation(
    rows: pd.DataFrame, factors: Sequence[str], value: str, cache: Cache | None = None
) -> Ablation | None:
    """The effects of `factors` on a value, each seed a replicate of the whole design.

    Effects are of the usual, sum-to-zero kind: a level's mean less the mean of all, and a pair's
    mean less what its two levels do by themselves. They are computed for each seed and then
    averaged, so the interval is over seeds. A seed that lacks a point is left out: an unbalanced
    design would take one factor's effect for another's.

    Args:
        rows: One row a point and seed; columns `seed`, the factors and the value.
        factors: What may vary; those of one level are left out.
        value: The column to explain.
        cache: Where importance is kept; a forest takes seconds.

    Returns:
        None where nothing varies, points are fewer than four or not fully crossed, or no seed
        has them all.
    """
    varied = [factor for factor in factors if rows[factor].nunique() > 1]
    levels = {factor: tuple(_sorted(rows[factor].dropna().unique())) for factor in varied}
    shape = [len(found) for found in levels.values()]
    points = int(np.prod(shape)) if varied else 0
    cells = rows.dropna(subset=[value]).groupby(["seed", *varied])[value].mean()
    if points < _FEWEST or cells.empty:
        return None
    whole = [seed for seed, found in cells.groupby("seed") if len(found) == points]
    if not whole:
        return None
    grids = {seed: _grid(cells.xs(seed, level="seed"), levels) for seed in whole}
    effects = tuple(_effects(grids, levels))
    mean = np.mean(list(grids.values()), axis=0)
    return Ablation(
        title="",
        stem="",
        levels=levels,
        effects=effects,
        shares=_shares(mean, tuple(levels)),
        importance=_importance(mean, levels, cache),
        seeds=len(whole),
        left_out=rows["seed"].nunique() - len(whole),
    )


def importance(values: np.ndarray[Any, Any], levels: Mapping[str, _Point]) -> dict[str, float]:
    """Share of each factor in what a random forest explains, by `optuna.importance`'s fANOVA.

    Args:
        values: One a point, an axis a factor.
        levels: Each factor's.

    Returns:
        Shares that sum to one; zero throughout where all values are equal.
    """
    if np.ptp(values) < 1e-12:
        return dict.fromkeys(levels, 0.0)
    space = {factor: _distribution(found) for factor, found in levels.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
        for place in np.ndindex(values.shape):
            at = {name: found[i] for (name, found), i in zip(levels.items(), place, strict=True)}
            study.add_trial(
                optuna.trial.create_trial(
                    params=at, distributions=space, value=float(values[place])
                )
            )
        trees = max(_TREES * _TREES_UP_TO // max(values.size, _TREES_UP_TO), _FEWEST_TREES)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {factor: float(found[factor]) for factor in levels}


def _importance(
    values: np.ndarray[Any, Any], levels: Mapping[str, _Point], cache: Cache | None
) -> dict[str, float]:
    if cache is None:
        return importance(values, levels)
    key = f"importance {levels} {hashlib.sha256(values.tobytes()).hexdigest()}"
    text = cache.computed(key, lambda: json.dumps(importance(values, levels)).encode())
    return dict(json.loads(text))


def ablation_frame(found: Sequence[Ablation]) -> pd.DataFrame:
    """A row an effect, in points, for CSV."""
    return pd.DataFrame(
        {
            "of": each.title,
            "term": " x ".join(effect.factors),
            "levels": " x ".join(map(level_text, effect.levels)),
            "effect_points": round(100 * effect.estimate.mean, 6),
            "half_width_points": round(100 * effect.estimate.half_width, 6),
            "seeds": effect.estimate.seeds,
            "term_share_of_variance": round(each.shares[effect.factors], 6),
            "factor_importance": round(each.importance.get(effect.factors[0], np.nan), 6)
            if len(effect.factors) == 1
            else np.nan,
        }
        for each in found
        for effect in each.effects
    )


def level_text(level: Any) -> str:
    """A level as it is written in figures and tables."""
    return level if isinstance(level, str) else names.short(float(level))


def _named(found: Ablation, title: str, stem: str) -> Ablation:
    return Ablation(**{**vars(found), "title": title, "stem": stem})


def _methods(results: Results, group: Group) -> pd.DataFrame:
    """Every method as tables show it; one of several configurations has a row for each."""
    arms = [arm for arm in shown_arms(results, group) if not arm.rows.empty]
    shown = [arm.rows.assign(method=arm.method if arm.choice else arm.label) for arm in arms]
    return pd.concat(shown) if shown else results.frame.iloc[:0]


def _sorted(levels: Any) -> list[Any]:
    found = [level if isinstance(level, str) else float(level) for level in levels]
    return list(found) if any(isinstance(level, str) for level in found) else sorted(found)


def _grid(cells: pd.Series, levels: Mapping[str, _Point]) -> np.ndarray[Any, Any]:
    """One seed's values as an array, an axis a factor."""
    index = pd.MultiIndex.from_product(list(levels.values()), names=list(levels))
    ordered = cells.reindex(index if len(levels) > 1 else next(iter(levels.values())))
    return ordered.to_numpy(dtype=float).reshape([len(found) for found in levels.values()])


def _effects(
    grids: Mapping[Any, np.ndarray[Any, Any]], levels: Mapping[str, _Point]
) -> Iterator[Effect]:
    for term in _terms(tuple(levels)):
        per_seed = {seed: _term(grid, tuple(levels), term) for seed, grid in grids.items()}
        for place in np.ndindex(next(iter(per_seed.values())).shape):
            values = pd.Series({seed: found[place] for seed, found in per_seed.items()})
            at = tuple(levels[factor][i] for factor, i in zip(term, place, strict=True))
            yield Effect(term, at, estimate(values))


def _terms(factors: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield from ((factor,) for factor in factors)
    yield from combinations(factors, 2)


def _term(
    grid: np.ndarray[Any, Any], factors: tuple[str, ...], term: tuple[str, ...]
) -> np.ndarray[Any, Any]:
    """The sum-to-zero effects of one term."""
    others = tuple(place for place, factor in enumerate(factors) if factor not in term)
    means: np.ndarray[Any, Any] = grid.mean(axis=others) - grid.mean()
    if len(term) == 1:
        return means
    alone = means.mean(axis=1, keepdims=True), means.mean(axis=0, keepdims=True)
    return np.asarray(means - alone[0] - alone[1])


def _shares(grid: np.ndarray[Any, Any], factors: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    total = float(grid.var())
    return {
        term: float((_term(grid, factors, term) ** 2).mean()) / total if total > 1e-24 else 0.0
        for term in _terms(factors)
    }


def _distribution(levels: _Point) -> optuna.distributions.BaseDistribution:
    if any(isinstance(level, str) for level in levels):
        return optuna.distributions.CategoricalDistribution(levels)
    return optuna.distributions.FloatDistribution(min(levels), max(levels))
