"""The cache itself, and that a report never reads what is out of date from it."""

from __future__ import annotations

import base64
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from analysis import cache as caches
from analysis import report, runs
from analysis.cache import Cache, _code, default_folder
from analysis.figures.effects import draw_effects
from analysis.figures.files import Album, Drawing
from analysis.figures.property import draw_property
from analysis.figures.style import Appearance
from analysis.kept import Report
from analysis.report import write_report
from analysis.runs import Results, findings, load, outcomes
from trainables import names

from .tracked_study import LOOKED, MODELS, Model, track

FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
# What drawings are of.
DATA = FRAME, np.array([1, 2, 3]), {"x": Appearance("red", "o", "-")}, "text"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache for three entries of ten bytes, less their checksums."""
    return Cache(tmp_path / "made" / "by need", limit=3 * (10 + 32))


def test_what_is_kept_is_found_and_nothing_else(cache: Cache) -> None:
    assert cache.get("one") is None
    cache.put("one", b"1" * 10)
    assert cache.get("one") == b"1" * 10
    assert cache.get("other") is None
    cache.put("one", b"")
    assert cache.get("one") == b""


@pytest.mark.parametrize("damage", [b"", b"short", b"2" * 42])
def test_a_damaged_entry_is_thrown_away(cache: Cache, damage: bytes) -> None:
    cache.put("one", b"1" * 10)
    (entry,) = cache.folder.iterdir()
    entry.write_bytes(damage)
    assert cache.get("one") is None
    assert list(cache.folder.iterdir()) == []


def test_what_was_used_longest_ago_is_evicted(cache: Cache) -> None:
    for key in ("one", "two", "three"):
        cache.put(key, key.encode().ljust(10))
        _age(cache)
    cache.get("one")
    cache.put("four", b"4" * 10)
    kept = {key for key in ("one", "two", "three", "four") if cache.get(key)}
    assert kept == {"one", "three", "four"}


def test_what_a_dead_writer_left_is_evicted(cache: Cache) -> None:
    cache.put("one", b"1" * 10)
    left = cache.folder / "tmpleft"
    left.write_bytes(b"x" * 100)
    _age(cache)
    cache.put("two", b"2" * 10)
    assert not left.exists()
    assert cache.get("two")


def _age(cache: Cache) -> None:
    """Makes all entries a second older, so that their order does not hang on the clock."""
    for entry in cache.folder.iterdir():
        time = entry.stat().st_mtime_ns - 10**9
        os.utime(entry, ns=(time, time))


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    cache.put("one", b"1")
    assert cache.get("one") is None


def test_a_write_that_fails_leaves_nothing(cache: Cache) -> None:
    place = cache._path("one")
    place.mkdir(parents=True)  # where no file can be put
    cache.put("one", b"1")
    assert list(cache.folder.iterdir()) == [place]


def test_a_fresh_cache_passes_over_what_is_there_and_replaces_it(cache: Cache) -> None:
    cache.put("one", b"old")
    fresh = Cache(cache.folder, fresh=True)
    assert fresh.get("one") is None
    fresh.put("one", b"new")
    assert cache.get("one") == b"new"


def test_several_processes_write_and_read_at_once(tmp_path: Path) -> None:
    """Room is for half of what they write, so they delete under each other's hands, too."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert all(pool.map(_work, [tmp_path] * 4))


def _work(folder: Path) -> bool:
    cache = Cache(folder, limit=5 * 10_032)
    whole = True
    for turn in range(60):
        key = str(turn % 10)
        cache.put(key, key.encode() * 10_000)
        whole &= cache.get(key) in (None, key.encode() * 10_000)
    return whole


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "robust-loss-study" / "analysis"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_folder() == Path("~/.cache/robust-loss-study/analysis").expanduser()


class Study:
    """A tracked study that a driver has ended, and what reading it costs."""

    def __init__(
        self,
        uri: str,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        models: Sequence[Model] = (*MODELS[:1], *LOOKED[1:3]),
    ) -> None:
        self.uri, self.name = uri, f"kept-{folder.name}"
        track(uri, folder, self.name, models, diagnostics={"embedding": "embedding"})
        self.client = MlflowClient(tracking_uri=uri)
        self.experiment = self.client.get_experiment_by_name(self.name).experiment_id
        self.read: list[str] = []  # what was fetched from the server
        searched, fetched = runs._runs_of, runs._fetched

        def search(*place: str) -> pd.DataFrame:
            self.read.append("runs")
            return searched(*place)

        def fetch(client: MlflowClient, uri: str) -> bytes:
            self.read.append(uri.partition("/artifacts/")[2])
            return fetched(client, uri)

        monkeypatch.setattr(runs, "_runs_of", search)
        monkeypatch.setattr(runs, "_fetched", fetch)
        self.stamp("first")

    def stamp(self, value: str) -> None:
        """As the driver does."""
        (report,) = self.client.search_runs([self.experiment], "tags.role = 'report'")
        self.client.set_tag(report.info.run_id, names.STAMP, value)

    def trial(self) -> str:
        """The run of some trial that is done."""
        wanted = "tags.role = 'trial' and attributes.status = 'FINISHED'"
        return str(self.client.search_runs([self.experiment], wanted)[0].info.run_id)

    def load(self, *, fresh: bool = False) -> Results:
        """Reads it anew; `read` then says what from the server."""
        self.read.clear()
        return load(self.uri, self.name, fresh=fresh)


@pytest.fixture
def study(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """See `Study`; its cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Study(store, tmp_path, monkeypatch)


def test_a_second_report_reads_no_run_and_shows_the_same(study: Study) -> None:
    first = study.load()
    assert "runs" in study.read
    second = study.load()
    assert "runs" not in study.read
    pd.testing.assert_frame_equal(second.frame, first.frame)
    assert first.frame["diagnostic/embedding/fisher"].notna().any()


def test_files_are_fetched_once(study: Study) -> None:
    run_id = study.trial()
    first = study.load().client
    found = outcomes(first, run_id), findings(first, run_id, "embedding")
    second = study.load().client
    again = outcomes(second, run_id), findings(second, run_id, "embedding")
    assert names.OUTCOMES_FILE not in study.read
    pd.testing.assert_frame_equal(again[0], found[0])
    assert again[1].keys() == found[1].keys()
    assert all((again[1][name] == found[1][name]).all() for name in found[1])


def test_tables_are_computed_once_for_each_state(study: Study) -> None:
    calls = list[str]()

    def table(what: str) -> pd.DataFrame:
        return study.load().client.table(what, lambda: calls.append(what) or FRAME)  # type: ignore[func-returns-value]

    for what in ("one", "one", "two"):
        pd.testing.assert_frame_equal(table(what), FRAME)
    study.stamp("second")
    table("one")
    assert calls == ["one", "two", "one"]
    study.stamp("")  # a driver is at work: nothing is kept
    table("one")
    table("one")
    assert calls[3:] == ["one", "one"]


@pytest.mark.parametrize("stamp", ["second", ""])
def test_what_a_driver_has_written_since_is_read(study: Study, stamp: str) -> None:
    """It has ended, or is still at work, or was killed."""
    run_id = study.trial()
    before = study.load()
    outcomes(before.client, run_id)
    study.stamp(stamp)
    study.client.set_tag(run_id, names.ATTACK_MARK, names.MASKED)
    after = study.load()
    assert "runs" in study.read
    outcomes(after.client, run_id)
    assert names.OUTCOMES_FILE in study.read
    assert (after.frame.set_index("run_id").loc[[run_id], "attack_mark"] == names.MASKED).all()


def test_nothing_is_kept_while_a_driver_is_at_work(study: Study, tmp_path: Path) -> None:
    study.stamp("")
    outcomes(study.load().client, study.trial())
    assert not (tmp_path / "cache").exists()


def test_a_driver_that_starts_while_runs_are_read_spoils_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is then read, half old and half new, must not pass for what comes after it."""
    run_id = study.trial()
    searched = runs._runs_of

    def overtaken(*place: str) -> pd.DataFrame:
        study.stamp("")
        study.client.set_tag(run_id, names.ATTACK_MARK, names.WEAK)
        return searched(*place)

    with monkeypatch.context() as patched:
        patched.setattr(runs, "_runs_of", overtaken)
        study.load()
    study.client.set_tag(run_id, names.ATTACK_MARK, names.MASKED)
    study.stamp("second")
    frame = study.load().frame
    assert (frame.set_index("run_id").loc[[run_id], "attack_mark"] == names.MASKED).all()


def test_a_run_that_a_user_deletes_or_restores_is_noticed(study: Study) -> None:
    run_id = study.trial()
    whole = study.load().frame
    study.client.delete_run(run_id)
    assert run_id not in set(study.load().frame["run_id"])
    study.client.restore_run(run_id)
    pd.testing.assert_frame_equal(study.load().frame, whole)


def test_a_damaged_entry_is_read_anew(study: Study, tmp_path: Path) -> None:
    whole = study.load().frame
    for entry in (tmp_path / "cache").rglob("*"):
        if entry.is_file():
            entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    pd.testing.assert_frame_equal(study.load().frame, whole)
    assert "runs" in study.read
    study.load()
    assert "runs" not in study.read


def test_fresh_reads_all_anew_and_keeps_it(study: Study) -> None:
    run_id = study.trial()
    study.load()
    study.client.set_tag(run_id, names.ATTACK_MARK, names.MASKED)  # by hand: no stamp tells
    assert names.MASKED not in set(study.load().frame["attack_mark"])
    assert names.MASKED in set(study.load(fresh=True).frame["attack_mark"])
    assert names.MASKED in set(study.load().frame["attack_mark"])


def test_what_was_computed_is_computed_once_for_each_key(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), list[str]()

    def compute(key: str) -> bytes:
        return cache.computed(key, lambda: calls.append(key) or key.encode())  # type: ignore[func-returns-value]

    assert [compute(key) for key in ("a", "b", "a")] == [b"a", b"b", b"a"]
    assert calls == ["a", "b"]
    again = Cache(tmp_path, fresh=True)
    assert again.computed("a", lambda: b"anew") == b"anew"
    assert cache.computed("a", lambda: b"never") == b"anew"


def test_what_other_code_computed_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    cache.computed("a", lambda: b"old")
    monkeypatch.setattr("analysis.cache._code", lambda: "another version")
    assert cache.computed("a", lambda: b"new") == b"new"


@pytest.mark.parametrize("ours", [caches, names])
def test_a_source_that_changes_is_other_code(
    ours: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "inner" / "source.py"
    source.parent.mkdir()
    source.touch()
    monkeypatch.setattr(ours, "__file__", str(tmp_path / "__init__.py"))
    before = _code.__wrapped__()
    source.write_text("pass")
    assert _code.__wrapped__() != before


def test_libraries_of_other_versions_are_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "version", lambda _: "0")
    assert _code.__wrapped__() != _code()


def test_a_figure_is_drawn_once_for_all_kinds_and_copied_then(tmp_path: Path) -> None:
    cache, drawn = Cache(tmp_path / "cache"), list[int]()

    def draw(data: pd.DataFrame) -> Figure:
        drawn.append(1)
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().plot(data["y"])
        return figure

    def data(last: float) -> pd.DataFrame:
        return pd.DataFrame({"y": [0.0, last]})

    def album(last: float, stem: str) -> Album:
        made = Album(tmp_path, cache)
        shown = made.add_inlined(made.add_figure(stem, Drawing(draw, (data(last),))))
        made.draw()
        image = base64.b64encode((tmp_path / f"{stem}.svg").read_bytes()).decode()
        assert made.inlined(shown) == f"data:image/svg+xml;base64,{image}"
        return made

    paths = [album(1.0, "one").files, album(1.0, "two").files, album(2.0, "three").files]
    assert len(drawn) == 2
    assert [path.name for path in paths[0]] == ["one.png", "one.pdf", "one.svg"]
    plain = Drawing(draw, (data(1.0),)).files(["png", "pdf", "svg"])
    for first, second, alone in zip(paths[0], paths[1], plain, strict=True):
        assert first.read_bytes() == second.read_bytes() == alone != b""


def test_an_album_draws_each_figure_in_the_kinds_that_are_wanted(tmp_path: Path) -> None:
    kinds = list[Sequence[str]]()

    class Counted(Drawing):
        def files(self, wanted: Sequence[str]) -> list[bytes]:
            kinds.append(wanted)
            return [kind.encode() for kind in wanted]

    album = Album(tmp_path, Cache(tmp_path / "cache"))
    alone = album.add_inlined(Counted(Figure, ("alone",)))
    album.add_figure("filed", Counted(Figure, ("filed",)))
    album.draw()
    assert kinds == [["svg"], ["png", "pdf", "svg"]]
    assert album.inlined(alone).endswith(base64.b64encode(b"svg").decode())
    assert [path.read_bytes() for path in album.files] == [b"png", b"pdf", b"svg"]


def test_many_figures_are_drawn_by_other_processes_and_are_the_same(tmp_path: Path) -> None:
    def draw(place: int) -> Figure:
        figure = Figure(figsize=(1, 1))
        figure.text(0, place / 10, f"process {os.getpid()} ")  # a comment in the SVG
        return figure

    album = Album(tmp_path, Cache(tmp_path / "cache"))
    drawings = [Drawing(draw, (place,)) for place in range(6)]
    for place, drawing in enumerate(drawings):
        album.add_figure(str(place), drawing)
    album.draw()
    told = [album.inlined(drawing) for drawing in drawings]
    assert len(set(told)) == len(told)
    for place in range(6):
        process = (tmp_path / f"{place}.svg").read_text().split("process ")[1].split()[0]
        assert (int(process) != os.getpid()) == (joblib.cpu_count() > 1)


def test_data_are_written_as_they_are_read(tmp_path: Path) -> None:
    album = Album(tmp_path, Cache(tmp_path / "cache"))
    album.add_data("data", FRAME)
    assert album.files == [tmp_path / "data.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "data.csv"), FRAME)


@pytest.mark.parametrize(
    "other",
    [
        (FRAME.assign(a=[1.0, 3.0]), *DATA[1:]),
        (FRAME.rename(columns={"a": "c"}), *DATA[1:]),
        (FRAME.iloc[::-1], *DATA[1:]),
        (FRAME.set_axis([1, 2]), *DATA[1:]),
        (DATA[0], np.array([1, 2, 4]), *DATA[2:]),
        (DATA[0], np.array([1, 2, 3]).view(float), *DATA[2:]),
        (DATA[0], np.array([[1, 2, 3]]), *DATA[2:]),
        (*DATA[:2], {"x": Appearance("red", "o", ":")}, DATA[3]),
        (*DATA[:2], {"y": Appearance("red", "o", "-")}, DATA[3]),
        (*DATA[:3], "other"),
    ],
)
def test_a_drawing_of_other_data_has_another_key(other: tuple[Any, ...]) -> None:
    def draw(*data: Any) -> Figure:
        raise AssertionError

    same = (FRAME.copy(), DATA[1].copy(), dict(DATA[2]), DATA[3])
    assert Drawing(draw, DATA).key == Drawing(draw, same).key
    assert Drawing(draw, DATA).key != Drawing(draw, other).key
    assert Drawing(draw_effects, DATA).key != Drawing(draw_property, DATA).key
    assert Drawing(draw_effects, DATA).key != Drawing(draw, DATA).key


def test_a_report_is_written_once_for_each_state_and_request(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    study = Study(store, tmp_path, monkeypatch, LOOKED)
    reads: list[str] = []

    def counted(tracked: runs.Tracked) -> Results:
        reads.append(tracked.study)
        return runs.read(tracked)

    monkeypatch.setattr(report, "read", counted)

    def write(folder: str, command: str = "study report", *, fresh: bool = False) -> Report:
        return write_report(study.uri, study.name, tmp_path / folder, command, fresh=fresh)

    first, second = write("first"), write("second")
    assert len(reads) == 1
    assert [file.name for file in first.files] == [file.name for file in second.files]
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert (second.page, second.table, second.missing) == (
        tmp_path / "second" / "index.html",
        first.table,
        first.missing,
    )
    logged = study.client.list_artifacts(study.load().report_run, names.REPORT_FOLDER)
    assert {Path(file.path).name for file in logged} == {file.name for file in second.files}
    assert "study report --open" in write("third", "study report --open").page.read_text("utf-8")
    assert len(reads) == 2
    write("fourth", fresh=True)
    assert len(reads) == 3
    study.stamp("another")
    write("fifth")
    assert len(reads) == 4
    study.stamp("")
    write("sixth"), write("seventh")
    assert len(reads) == 6
