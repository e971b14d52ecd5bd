"""The section "Looking closer": whose pictures, which numbers, and what the page makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lxml import html
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.cache import Cache
from analysis.closer import look_closer
from analysis.figures.embedding import Clouds, clouds
from analysis.figures.exhibits import Gallery, gallery
from analysis.figures.files import Album
from analysis.figures.gallery import draw_exhibit, draw_gallery
from analysis.figures.scatter import draw_cloud, draw_clouds
from analysis.figures.separability import draw_separability, separability_frame
from analysis.figures.style import PALETTE, appearances, method_colours
from analysis.plan import Group, Plan
from analysis.report import Report, write_report
from analysis.runs import Results, load
from analysis.specimens import examined, metric, numbers, specimens
from analysis.statistics import Estimate
from analysis.tables.findings import FindingsTable, findings_frame, findings_tables
from analysis.tables.text import digits, percent, plain
from trainables import names

from .tracked_study import DIAGNOSTICS, IMAGES, pixels

LOUD = "<b>loud</b>"


@pytest.fixture(scope="module")
def images(looked: Results, group: Group) -> Gallery:
    """The gallery of `looked`."""
    found = gallery(looked, group, "looks")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def points(looked: Results, group: Group) -> Clouds:
    """The drawn features of `looked`."""
    found = clouds(looked, group, "embedding")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def theory(looked: Results) -> FindingsTable:
    """The table of the theory's numbers."""
    (table,) = findings_tables(looked, "theory")
    return table


@pytest.fixture(scope="module")
def report(store: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of `looked`."""
    return write_report(store, "looked", tmp_path_factory.mktemp("looked"), "study report looked")


@pytest.fixture(scope="module")
def section(report: Report) -> html.HtmlElement:
    """The page's section."""
    page = html.document_fromstring(report.page.read_text(encoding="utf-8"))
    return page.get_element_by_id("closer")


def entries(table: FindingsTable, number: str) -> dict[str, str]:
    """A column's texts by method."""
    (quantity,) = [quantity for quantity in table.quantities if quantity.number == number]
    return {row.method: table.entry(row, quantity) for row in table.rows}


# --- whose findings


def test_a_plan_of_a_time_without_diagnostics_has_none(small: Results, looked: Results) -> None:
    assert small.plan.diagnostics == {}
    assert Plan({**small.plan.raw, "diagnostics": None}).diagnostics == {}
    assert list(looked.plan.diagnostics.items()) == list(DIAGNOSTICS.items())


def test_numbers_are_read_by_label(looked: Results) -> None:
    assert numbers(looked.frame, "looks") == ["accuracy"]
    assert set(numbers(looked.frame, "embedding")) == {"fisher", "nearest_mean"}
    assert numbers(looked.frame, "look") == []


def test_half_a_trial_has_no_findings(looked: Results) -> None:
    """The failed run has logged all numbers and arrays."""
    rows = examined(looked.frame, "looks")
    assert looked.frame["trial_id"].nunique() == 7
    assert rows["name"].tolist() == [
        "sce · lenet5/mnist5k · seed 0",
        "sce · lenet5/mnist5k · seed 1",
        "isce s=1 m=0.05 · lenet5/mnist5k · seed 0",
        "isce s=2 m=0.1 · lenet5/mnist5k · seed 0",
        f"{LOUD} · lenet5/mnist5k · seed 1",
    ]
    assert examined(looked.frame, "unknown").empty


def test_a_method_is_shown_at_validations_choice_and_its_first_seed(
    looked: Results, group: Group
) -> None:
    found = list(specimens(looked, group, "looks"))
    captions = [specimen.caption for specimen in found]
    assert captions == ["sce, seed 0", "isce s=2 m=0.1, seed 0", f"{LOUD}, seed 1"]
    assert found[2].arrays["margin"].tolist() == [4.0, -1.0, 2.0, 1.5, -3.0]


def test_an_untuned_method_is_shown_at_its_first_point(looked: Results, group: Group) -> None:
    untuned = replace(looked, plan=Plan({**looked.plan.raw, "choose": []}))
    captions = [specimen.caption for specimen in specimens(untuned, group, "looks")]
    assert captions == ["sce, seed 0", "isce s=1 m=0.05, seed 0", f"{LOUD}, seed 1"]


# --- exhibits


def test_exhibits_are_the_worst_and_the_best_in_their_order(images: Gallery) -> None:
    frame = images.frame[images.frame["method"] == "isce"]
    assert list(frame) == [
        *("dataset", "backbone", "method", "configuration", "seed", "group"),
        *("index", "label", "before", "after", "margin", "l2", "linf"),
    ]
    assert frame["group"].tolist() == ["worst"] * 3 + ["best"] * 2
    assert frame["index"].tolist() == [8, 2, 6, 0, 4]
    assert frame["label"].tolist() == frame["before"].tolist() == [2, 2, 0, 0, 1]
    assert frame["after"].tolist() == [12, 12, 0, 0, 1]
    assert frame["margin"].tolist() == [-4.0, -2.0, 0.5, 3.0, 1.0]
    assert frame["l2"].tolist() == [0.8, 0.2, 0.6, 0.0, 0.4]
    assert frame["linf"].tolist() == [0.08, 0.02, 0.06, 0.0, 0.04]
    assert set(frame["configuration"]) == {"isce s=2 m=0.1"}


def test_exhibits_have_their_own_pixels_and_accuracy(images: Gallery) -> None:
    sce, isce, _ = images.exhibits
    for exhibit, channels in ((sce, 3), (isce, 1)):
        expected = np.stack([pixels(index, channels) for index in exhibit.frame["index"]])
        np.testing.assert_array_equal(exhibit.clean, expected)
        np.testing.assert_array_equal(exhibit.attacked, expected + np.float32(0.5))
    assert isce.caption == ("isce s=2 m=0.1, seed 0: 70.0 % of 10 images right under the attack")


def test_every_image_is_drawn_in_its_colours(images: Gallery) -> None:
    sce, isce, _ = images.exhibits
    axes = Figure(figsize=(12, 2)).add_subplot()
    for exhibit in (sce, isce):
        draw_exhibit(axes, exhibit, {"worst": 0.0, "best": 6.0}, 0.0)
    drawn = [np.asarray(image.get_array()) for image in axes.images]
    assert len(drawn) == 2 * 2 * 5
    assert all(image.shape == (2, 2, 3) for image in drawn)
    # The first of the worst is image 8: attacked, then clean; colour, then grey.
    np.testing.assert_allclose(drawn[0][0, 0], [0.9, 0.905, 0.91], atol=1e-6)
    np.testing.assert_allclose(drawn[1][0, 0], [0.4, 0.405, 0.41], atol=1e-6)
    np.testing.assert_allclose(drawn[11][0, 0], [0.4, 0.4, 0.4], atol=1e-6)


def test_broken_images_are_marked_in_more_than_colour(images: Gallery) -> None:
    axes = Figure(figsize=(12, 2)).add_subplot()
    draw_exhibit(axes, images.exhibits[1], {"worst": 0.0, "best": 6.0}, 0.0)
    caption, *below = axes.texts
    assert caption.get_text() == images.exhibits[1].caption
    assert [text.get_text() for text in below] == [
        "2 → 12\n\N{MINUS SIGN}4.0",
        "2 → 12\n\N{MINUS SIGN}2.0",
        "0 → 0\n0.50",
        "0 → 0\n3.0",
        "1 → 1\n1.0",
    ]
    assert [text.get_weight() for text in below] == ["bold"] * 2 + ["normal"] * 3
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    # From 0 on and one further, where the two broken ones stand.
    lefts = [axes.images[row].get_extent()[0] for row in (0, 2)]
    assert [frame.get_x() for frame in frames] == lefts


def test_gallery_has_a_row_a_method_and_fits_its_figure(images: Gallery) -> None:
    figure = draw_gallery(images)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert [exhibit.caption for exhibit in images.exhibits] == [
        text for text in texts if "right under the attack" in text
    ]
    width, height = figure.get_size_inches()
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, width), (height, 0))
    tops = [image.get_extent()[3] for image in axes.images[::2]]
    assert sorted(set(tops)) == pytest.approx([1.2, 2.5, 3.8])
    assert max(image.get_extent()[2] for image in axes.images) < height


def test_a_method_that_was_never_right_has_an_empty_row(images: Gallery) -> None:
    first, second, _ = images.exhibits
    none = replace(first, frame=first.frame.iloc[:0])
    drawn = draw_gallery(Gallery(images.group, (none, second)))
    assert len(drawn.axes[0].images) == 2 * len(second.frame)
    assert len(Gallery(images.group, (none, second)).frame) == len(second.frame)


# --- embedding


def test_features_of_two_and_three_dimensions_are_drawn(points: Clouds) -> None:
    frame = points.frame
    assert list(frame.columns[5:]) == ["index", "label", "predicted", "x", "y", "z"]
    assert frame["configuration"].unique().tolist() == ["sce", "isce s=2 m=0.1"]  # loud has five
    fourth = frame[frame["index"] == 4].set_index("method")
    assert fourth.loc["sce", ["x", "y", "z"]].tolist() == [12.0, 13.0, 14.0]
    assert fourth.loc["isce", ["x", "y"]].tolist() == [8.0, 9.0]
    assert math.isnan(fourth.loc["isce", "z"])
    assert fourth[["label", "predicted"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    assert len(frame) == 2 * IMAGES


def test_nothing_is_drawn_of_more_dimensions(looked: Results, group: Group) -> None:
    loud = replace(looked, plan=Plan({**looked.plan.raw, "methods": [LOUD]}))
    assert clouds(loud, group, "embedding") is None


def test_a_panel_a_method_in_its_own_dimensions(points: Clouds) -> None:
    figure = draw_clouds(points)
    assert [axes.name for axes in figure.axes] == ["3d", "rectilinear"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["sce, seed 0", "isce s=2 m=0.1, seed 0"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["0", "1", "2"]


def test_classes_differ_in_colour_and_in_marker() -> None:
    axes = Figure().add_subplot()
    points = pd.DataFrame({"label": range(10), "x": 0.0, "y": 0.0})
    draw_cloud(axes, points)
    assert len(axes.collections) == 10
    colours = {tuple(drawn.get_facecolor()[0]) for drawn in axes.collections}
    shapes = {drawn.get_paths()[0].vertices.tobytes() for drawn in axes.collections}
    assert len(colours) == len(shapes) == 10


# --- separability


def test_separability_is_over_all_seeds_of_what_was_examined(looked: Results, group: Group) -> None:
    frame = separability_frame(looked, group, "embedding").set_index("label")
    assert frame.index.tolist() == ["sce", "isce s=2 m=0.1", LOUD]  # not what has no run yet
    sce = frame.loc["sce"]
    assert (sce["fisher"], sce["fisher_half_width"], sce["seeds"]) == (2.5, 0, 2)
    assert sce["nearest_mean"] == pytest.approx(0.75)  # 0.7 and 0.8, not the first seed alone
    assert sce["nearest_mean_half_width"] == pytest.approx(0.635310, abs=1e-6)
    assert frame.loc[LOUD, "seeds"] == 1  # the other one failed
    assert math.isnan(frame.loc[LOUD, "nearest_mean_half_width"])


def test_separability_has_a_dot_and_its_interval_a_method(looked: Results, group: Group) -> None:
    frame = separability_frame(looked, group, "embedding")
    methods = looked.plan.methods
    drawn_as = appearances(
        zip(frame["method"], frame["label"], strict=True), method_colours(methods)
    )
    fisher, nearest = draw_separability(frame, drawn_as).axes
    assert [axes.get_title() for axes in (fisher, nearest)] == [
        "Fisher ratio: variance between over within",
        "nearest to their own class mean (%)",
    ]
    ratios, dots = (
        [container[0].get_xydata()[0].tolist() for container in axes.containers]
        for axes in (fisher, nearest)
    )
    assert ratios == [[2.5, 0], [2.5, 1], [2.5, 2]]
    assert dots == [pytest.approx([75, 0]), pytest.approx([70, 1]), pytest.approx([80, 2])]
    colours = [container[0].get_color() for container in nearest.containers]
    assert colours == [drawn_as[label].colour for label in frame["label"]]
    bar = nearest.containers[0][2][0].get_segments()[0][:, 0]
    assert bar.tolist() == pytest.approx([75 - 63.5310, 75 + 63.5310], abs=1e-4)
    assert nearest.get_xlim()[1] == 100.5  # though an interval reaches beyond
    labels = [text.get_text() for text in fisher.get_yticklabels()]
    assert labels == ["sce", "isce s=2 m=0.1 †", f"{LOUD} †"]
    assert fisher.get_ylim() == (2.5, -0.5)  # the first on top
    assert fisher.get_xscale() == "linear" and fisher.get_xlim()[0] == 0
    wide = frame.assign(fisher=[1.0, 2.0, 15.0], nearest_mean=0.1)
    fisher, nearest = draw_separability(wide, drawn_as).axes
    assert (fisher.get_xscale(), nearest.get_xlim()[0]) == ("linear", 0)
    wide = frame.assign(fisher=[1.0, 2.0, 15.1])
    assert draw_separability(wide, drawn_as).axes[0].get_xscale() == "log"


# --- tables


def test_numbers_are_means_over_seeds(theory: FindingsTable) -> None:
    broken = theory.estimate(theory.rows[0], theory.quantities[0])
    assert (broken.mean, broken.seeds) == (8.5, 2)
    assert broken.half_width == pytest.approx(6.35310, abs=1e-5)  # t of one degree, 12.7062 / 2
    assert [row.label for row in theory.rows] == ["sce", "isce s=2 m=0.1", LOUD, "none yet"]
    assert [row.seeds for row in theory.rows] == ["2", "1", "1 of 2", "0 of 1"]
    assert entries(theory, "broken")["sce"] == "8.50 ± 6.35"
    assert entries(theory, "holds")["sce"] == "25.0 ± 0.0"
    assert entries(theory, "f_i")["sce"] == "0.950 ± 0.635"


def test_numbers_that_a_run_lacks_are_dashes(theory: FindingsTable) -> None:
    """Nothing was broken on isce: there are no shares of it."""
    assert entries(theory, "broken") == {
        "sce": "8.50 ± 6.35",
        "isce": "0 †",
        LOUD: "9.00 †",
        "none yet": "—",
    }
    assert entries(theory, "larger") == {
        "sce": "50.0 ± 0.0",
        "isce": "—",
        LOUD: "50.0 †",
        "none yet": "—",
    }


def test_seeds_are_those_that_were_examined(looked: Results) -> None:
    """A run of a time before the diagnostic has accuracies and no findings."""
    columns = [name for name in looked.frame if str(name).startswith(names.DIAGNOSTIC)]
    earlier = looked.frame.copy()
    earlier.loc[earlier["name"] == "sce · lenet5/mnist5k · seed 1", columns] = math.nan
    (table,) = findings_tables(replace(looked, frame=earlier), "theory")
    assert table.rows[0].seeds == "1 of 2"
    assert entries(table, "broken")["sce"] == "8.00 †"


def test_tables_are_written_long(theory: FindingsTable) -> None:
    read = pd.read_csv(StringIO(findings_frame([theory]).to_csv(index=False)))
    assert len(read) == 4 * 7
    found = read[(read["method"] == "sce") & (read["number"] == "violations")].iloc[0]
    assert (found["mean"], found["half_width"], found["seeds"]) == (0.1, 0.0, 2)
    whose = ["diagnostic", "dataset", "backbone"]
    assert found[whose].tolist() == ["theory", "mnist5k", "lenet5"]
    empty = read[read["method"] == "none yet"]
    assert empty["mean"].isna().all()
    assert empty["seeds_planned"].tolist() == [1] * 7


def test_an_unknown_diagnostic_is_tabled_number_by_number(looked: Results) -> None:
    (table,) = findings_tables(looked, "sharp")
    assert [quantity.title for quantity in table.quantities] == ["peak"]
    assert entries(table, "peak")["sce"] == "1234 ± 0"


def test_exhibits_are_not_tabled(looked: Results) -> None:
    assert findings_tables(looked, "looks") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.9351, 0.0571, 3), "0.935 ± 0.057"),
        (Estimate(-75.14, 3.2, 2), "\N{MINUS SIGN}75.1 ± 3.2"),
        (Estimate(6519.8, 120.4, 2), "6520 ± 120"),
        (Estimate(1.04e-30, 1.29e-29, 2), "1.04e\N{MINUS SIGN}30 ± 1.29e\N{MINUS SIGN}29"),
        (Estimate(0.0, 0.0, 2), "0 ± 0"),
        (Estimate(8.5, math.nan, 1), "8.50 †"),
        (Estimate(math.nan, math.nan, 0), "—"),
    ],
)
def test_plain_numbers(value: Estimate, text: str) -> None:
    assert plain(value) == text


def test_digits() -> None:
    shown = [digits(value, 2) for value in (283.4, -0.04512, 0.0, 0.9512)]
    assert shown == ["283", "\N{MINUS SIGN}0.045", "0", "0.95"]


def test_percent_stays_what_it_was() -> None:
    assert percent(Estimate(0.0, 0.0, 2)) == "0.0 ± 0.0"


# --- files and page


def test_all_files_are_written(report: Report) -> None:
    made = {path.name for path in report.files}
    pictures = {
        f"{stem}.{kind}"
        for stem in ("exhibits-looks", "embedding", "separability")
        for kind in ("png", "pdf", "svg", "csv")
    }
    assert pictures | {"table-embedding.csv", "table-theory.csv", "table-sharp.csv"} <= made
    assert len(pd.read_csv(report.page.with_name("exhibits-looks.csv"))) == 3 * 5


def test_several_data_sets_have_a_picture_each(store: str, tmp_path: Path) -> None:
    album = Album(tmp_path, Cache(tmp_path / "cache"))
    _, look = look_closer(load(store, "looked-twice"), album)
    stems = ["exhibits-looks-lenet5-mnist5k", "exhibits-looks-lenet5-mnist"]
    apart = ["separability-lenet5-mnist5k", "separability-lenet5-mnist"]
    assert list(dict.fromkeys(path.stem for path in album.files)) == [
        *apart,
        "table-embedding",
        *stems,
    ]
    assert [picture.data for picture in look.pictures] == [f"{stem}.csv" for stem in stems]
    assert look.notes == ()
    for stem, dataset in zip(stems, ("mnist5k", "mnist"), strict=True):
        assert set(pd.read_csv(tmp_path / f"{stem}.csv")["dataset"]) == {dataset}


def test_features_that_cannot_be_drawn_are_explained(store: str, tmp_path: Path) -> None:
    page = write_report(store, "looked-twice", tmp_path, "study report looked-twice").page
    text = page.read_text(encoding="utf-8")
    assert text.count("<code>embedding: 3</code>") == 1
    assert text.count("<caption>Penultimate features of the clean test images") == 2


def test_a_diagnostic_without_any_run_is_left_out_and_said(looked: Results, tmp_path: Path) -> None:
    columns = [name for name in looked.frame if str(name).startswith(names.DIAGNOSTIC)]
    bare = replace(looked, frame=looked.frame.drop(columns=columns))
    album = Album(tmp_path, Cache(tmp_path / "cache"))
    looks = look_closer(bare, album)
    assert not any(look.pictures for look in looks)
    assert {path.name for path in album.files} == {"table-theory.csv", "table-embedding.csv"}
    assert all("Left out: 7 of 7 trials" in look.notes[-1] for look in looks)


def test_equal_findings_are_equal_files(looked: Results, report: Report, tmp_path: Path) -> None:
    again = Album(tmp_path, Cache(tmp_path / "cache"))
    look_closer(looked, again)
    again.draw()
    assert len(again.files) == 12 + 3
    for path in again.files:
        assert path.read_bytes() == report.page.with_name(path.name).read_bytes(), path.name


def test_section_has_a_part_a_diagnostic(section: html.HtmlElement) -> None:
    assert [heading.text for heading in section.iter("h3")] == [
        "Where the classes lie in feature space",
        "Images before and under attack: looks",
        "The theory on the models' own images",
        "sharp",
    ]
    assert len(list(section.iter("img"))) == 3
    captions = [caption.text_content() for caption in section.iter("caption")]
    assert len(captions) == 3
    assert all("lenet5/mnist5k" in caption for caption in captions)


def test_section_says_what_the_paper_claims_and_what_is_left_out(
    section: html.HtmlElement,
) -> None:
    text = " ".join(section.text_content().split())
    assert "section 3.3.1 claims that LI > L wherever z > 0" in text
    assert "takes fi = 0.97 and 8 for the sum" in text
    assert text.count("Left out: 2 of 7 trials, which have no findings yet") == 4
    assert text.count("† one seed: exploratory") == 3
    assert "PGD untargeted, l2_rms eps 0.04, 20 steps" in text
    assert "are not drawn" not in text


def test_table_on_the_page(section: html.HtmlElement) -> None:
    table = list(section.iter("table"))[1]
    head, sce, _, loud, _ = [[c.text_content().strip() for c in row] for row in table.iter("tr")]
    assert head[:4] == ["Method", "Seeds", "Images broken", "z > 0 at x (%)"]
    assert sce == [
        *("sce", "2", "8.50 ± 6.35", "25.0 ± 0.0", "20.0 ± 0.0", "50.0 ± 0.0", "10.0 ± 0.0"),
        *("0.950 ± 0.635", "8e\N{MINUS SIGN}30 ± 0"),
    ]
    assert loud[0] == LOUD
    assert not list(section.iter("b"))


def test_no_diagnostics_no_section(store: str, small: Results, tmp_path: Path) -> None:
    album = Album(tmp_path, small.client.cache)
    assert look_closer(small, album) == []
    assert album.files == []
    page = write_report(store, "flat", tmp_path, "study report flat").page
    text = page.read_text(encoding="utf-8")
    assert "Looking closer" not in text
    assert 'href="#closer"' not in text


# --- colours


def test_the_colours_of_many_methods_stay_apart() -> None:
    methods = [f"method {index}" for index in range(len(PALETTE))]
    colours = [np.array(to_rgb(colour)) for colour in method_colours(methods).values()]
    assert len(colours) >= 13
    apart = [
        float(np.linalg.norm(one - other))
        for index, one in enumerate(colours)
        for other in colours[:index]
    ]
    assert min(apart) > 0.2


def test_metric_is_the_trackers() -> None:
    assert metric("looks", "accuracy") == "diagnostic/looks/accuracy"
