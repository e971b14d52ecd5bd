"""What the report tells of a search."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.figures.history import draw_history
from analysis.plan import Plan
from analysis.searches import SearchView, search_views, searches_frame


def suggestion(number: int, state: str = "complete", **further: Any) -> dict[str, Any]:
    """As the driver describes one."""
    axes = {"loss.s": 1.0 + number, "training.lr": 10.0**-number, "loss": "isce"}
    plain = {"robust": None, "clean": None, "epoch": None, "reason": ""}
    return {"number": number, "axes": axes, "model_id": "", "state": state, **plain, **further}


TRIED = [
    suggestion(0, robust=0.5, clean=0.75),
    suggestion(1, "stopped", epoch=2),
    suggestion(2, robust=0.75, clean=0.5),
    suggestion(3, "failed", reason="NonFiniteLoss"),
    suggestion(4, robust=0.25, clean=0.25),
]


def view(**keys: Any) -> SearchView:
    """The view of one search."""
    raw = {
        "method": "isce",
        "dataset": "mnist5k",
        "backbone": "lenet5",
        "budget": 6,
        "sampler": "tpe",
        "objective": ["robust"],
        "stop": {"rule": "asha", "grace": 1, "factor": 3.0, "by": "clean"},
        "best": [2],
        "suggestions": TRIED,
    }
    (found,) = search_views(Plan({"searches": [{**raw, **keys}]}))
    return found


def test_it_is_told_in_words() -> None:
    found = view()
    assert found.title == "isce on lenet5/mnist5k"
    assert found.counts == "3 complete, 1 stopped, 1 failed"
    assert found.rule == "ASHA by clean accuracy"
    assert found.numeric == ("loss.s", "training.lr")
    assert found.best == [
        {
            "number": "3",
            "point": "s = 3, lr = 0.01, loss = isce",
            "robust": "75.0 %",
            "clean": "50.0 %",
        }
    ]
    assert view(stop=None).rule == ""


def test_a_search_that_has_suggested_nothing_is_not_shown() -> None:
    assert search_views(Plan({"searches": [{"suggestions": []}]})) == []
    assert search_views(Plan({})) == []


def test_the_data_have_a_row_a_suggestion() -> None:
    frame = searches_frame([view(), view(method="arcface")])
    assert len(frame) == 10
    assert frame.columns[:3].tolist() == ["dataset", "backbone", "method"]
    assert frame["best"].tolist() == [0, 0, 1, 0, 0] * 2


def test_the_figure_shows_what_was_tried_and_the_best_so_far() -> None:
    figure = draw_history(view())
    first, s, lr = figure.axes
    tried, best, stopped, star = first.get_lines()
    assert tried.get_xydata().tolist() == [[1, 50], [3, 75], [5, 25]]
    assert best.get_xydata().tolist() == [[1, 50], [3, 75], [5, 75]]
    assert stopped.get_xdata().tolist() == [2]
    assert star.get_xydata().tolist() == [[3, 75]]
    assert s.get_lines()[0].get_xdata().tolist() == [1, 3, 5]
    assert (s.get_xscale(), lr.get_xscale()) == ("linear", "log")


def test_two_objectives_are_drawn_against_each_other() -> None:
    two = view(objective=["clean", "robust"], best=[2, 0], stop=None, sampler="nsga2")
    first = draw_history(two).axes[0]
    assert first.get_lines()[0].get_xydata().tolist() == [[75, 50], [50, 75], [25, 25]]
    assert first.get_lines()[1].get_xydata().tolist() == [[75, 50], [50, 75]]


@pytest.mark.parametrize("tried", [TRIED, TRIED[1:2]], ids=["some complete", "none complete"])
def test_nothing_is_cut_off(tried: list[dict[str, Any]]) -> None:
    figure = draw_history(view(suggestions=tried, best=[]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    width, height = canvas.get_width_height()
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
