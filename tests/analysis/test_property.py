"""Figure 5: the paper's surface, and where its condition fails."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures.files import Drawing
from analysis.figures.property import draw_property, property_frame


def test_published_region_is_positive_and_rises_to_the_known_maximum() -> None:
    frame = property_frame()
    published = frame[frame["panel"] == "published"]
    top = published.loc[published["z"].idxmax()]
    assert (top["s"], top["m"]) == (2.0, pytest.approx(0.1))
    assert top["z"] == pytest.approx(0.0391653, abs=1e-6)
    origin = published[(published["s"] == 1) & (published["m"] == 0)]["z"]
    assert origin.iloc[0] == pytest.approx(0, abs=1e-15)
    assert (published["z"] > -1e-15).all()
    # By hand: s e^(sf+m) / (e^(sf+m) + S)^2 - e^f / (e^f + S)^2
    for _, row in published.sample(20, random_state=0).iterrows():
        a, b = np.exp(row["s"] * 0.97 + row["m"]), np.exp(0.97)
        assert row["z"] == pytest.approx(row["s"] * a / (a + 8) ** 2 - b / (b + 8) ** 2, abs=1e-15)


def test_it_fails_beyond() -> None:
    """At the paper's f from s = 5.44 on; from f = 3 everywhere on s in [1, 2]."""
    frame = property_frame()
    beyond = frame[frame["panel"] == "beyond"]
    near = beyond[np.isclose(beyond["f_i"], 0.975)].sort_values("s")
    first = near[near["z"] <= 0]["s"].min()
    assert 5.3 < first < 5.5
    assert (beyond[(beyond["f_i"] >= 3) & (beyond["s"] <= 2)]["z"] < 0).all()


def test_figure_has_its_three_panels() -> None:
    figure = draw_property(property_frame())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)"]
    files = Drawing(draw_property, (property_frame(),)).files(["png", "pdf", "svg"])
    assert all(10_000 < len(data) < 2_000_000 for data in files)
