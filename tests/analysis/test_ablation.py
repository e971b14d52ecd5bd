"""Effects against designs whose effects are known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.ablation import ablation, ablation_frame, importance
from analysis.figures.effects import draw_effects

S, M = (1.0, 1.5, 2.0), (0.0, 0.1)


def rows(values):
    """`values[seed][i][j]` at (S[i], M[j])."""
    return pd.DataFrame(
        [
            {"seed": seed, "s": S[i], "m": M[j], "value": value}
            for seed, grid in enumerate(values)
            for i, line in enumerate(grid)
            for j, value in enumerate(line)
        ]
    )


def known(effect, term, levels):
    return next(e.estimate for e in effect.of(*term) if e.levels == levels)


def test_effects_are_those_that_the_design_was_made_of():
    of_s, of_m = np.array([-0.1, 0.0, 0.1]), np.array([-0.02, 0.02])
    both = np.array([[0.01, -0.01], [0, 0], [-0.01, 0.01]])
    grid = 0.6 + of_s[:, None] + of_m[None, :] + both
    found = ablation(rows([grid, grid + 0.05]), ["s", "m"], "value")
    assert [e.estimate.mean for e in found.of("s")] == pytest.approx(of_s)
    assert [e.estimate.mean for e in found.of("m")] == pytest.approx(of_m)
    assert [e.estimate.mean for e in found.of("s", "m")] == pytest.approx(both.ravel())
    # A seed that is better everywhere moves no effect.
    assert all(e.estimate.half_width == pytest.approx(0, abs=1e-12) for e in found.effects)
    parts = (of_s**2).mean(), (of_m**2).mean(), (both**2).mean()
    assert list(found.shares.values()) == pytest.approx([part / sum(parts) for part in parts])


def test_intervals_are_over_seeds():
    draws = np.random.default_rng(0).normal(0.5, 0.1, (5, 3, 2))
    found = ablation(rows(draws), ["s", "m"], "value")
    per_seed = draws[:, 2].mean(axis=1) - draws.mean(axis=(1, 2))
    expected = stats.t.ppf(0.975, 4) * stats.sem(per_seed)
    assert known(found, ("s",), (2.0,)).half_width == pytest.approx(expected)
    assert known(found, ("s",), (2.0,)).seeds == 5


@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
@settings(max_examples=25, deadline=None)
def test_effects_sum_to_zero_and_give_the_grid_back(values):
    grids = np.array(values).reshape(2, 3, 2)
    found = ablation(rows(grids), ["s", "m"], "value")
    main = {f: [e.estimate.mean for e in found.of(f)] for f in "sm"}
    both = np.array([e.estimate.mean for e in found.of("s", "m")]).reshape(3, 2)
    assert np.allclose([sum(main["s"]), sum(main["m"])], 0)
    assert np.allclose([*both.sum(axis=0), *both.sum(axis=1)], 0)
    mean = grids.mean(axis=0)
    again = mean.mean() + np.array(main["s"])[:, None] + np.array(main["m"])[None, :] + both
    assert np.allclose(again, mean)


def test_a_seed_that_lacks_a_point_is_left_out():
    whole = rows(np.random.default_rng(0).random((3, 3, 2)))
    found = ablation(whole.drop(index=0), ["s", "m"], "value")
    alone = ablation(whole[whole["seed"] > 0], ["s", "m"], "value")
    assert (found.seeds, found.left_out) == (2, 1)
    assert found.effects == alone.effects
    assert ablation(whole[whole["s"] == 1.0], ["s", "m"], "value") is None
    assert ablation(whole.assign(value=np.nan), ["s", "m"], "value") is None


def test_importance_names_the_factor_that_matters():
    levels = {"s": tuple(np.linspace(1, 2, 6)), "loss": ("a", "b", "c")}
    by_s = np.repeat(np.linspace(0.2, 0.9, 6)[:, None], 3, axis=1)
    found = importance(by_s, levels)
    assert list(found) == ["s", "loss"]
    assert found["s"] > 0.95
    assert sum(found.values()) == pytest.approx(1)
    by_loss = np.repeat(np.array([[0.2, 0.9, 0.5]]), 6, axis=0)
    assert importance(by_loss, levels)["loss"] > 0.95
    assert set(importance(np.full((6, 3), 0.5), levels).values()) == {0.0}


def test_every_effect_is_in_the_data_and_every_term_is_drawn():
    found = ablation(rows(np.random.default_rng(0).random((3, 3, 2))), ["s", "m"], "value")
    frame = ablation_frame([found])
    assert list(frame["term"].unique()) == ["s", "m", "s x m"]
    assert len(frame) == 3 + 2 + 6
    first = found.effects[0]
    assert frame["effect_points"][0] == pytest.approx(100 * first.estimate.mean, abs=1e-6)
    titles = [axes.get_title() for axes in draw_effects(found).axes if axes.get_title()]
    assert [title.split(":")[0] for title in titles] == ["s", "m", "s × m"]
