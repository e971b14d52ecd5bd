"""Cleaning: what a study refers to stays, all else goes, and a dry run changes no byte."""

import json
import os
import shutil
import time

import pytest
from typer.testing import CliRunner

from study.clean import YOUNG, look, remove
from study.cli import app
from study.lock import CLEANING, StudyLock, cleaning
from study.references import note, noted, wanted_by
from study.results import is_complete
from trainables.errors import DamagedEntry, NothingKept, StudyIsRunning, UnknownStudy
from trainables.store import MANIFEST, Store

from .conftest import Finished

OTHER = {"study": "other", "methods": {"arcface": {"loss": "arcface"}, "sce": {"loss": "sce"}}}


def clean(finished, *plans, forget=()):
    """Cleans as the command does; gives what was found."""
    keep = {plan.name: wanted_by(plan) for plan in plans}
    with cleaning(finished.store) as lock:
        found = look(finished.reader, keep, forget)
        remove(finished.store, found.items, lock)
    return found


@pytest.fixture(scope="module")
def two_once(finished_once, tmp_path_factory, run_plan):
    """A folder in which another study has been run too; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(finished_once / "store", folder / "store")
    there = Finished(folder)
    result, _ = run_plan(there.planned(**OTHER), folder)
    assert not result.failed
    return folder


@pytest.fixture
def two(two_once, tmp_path):
    """The finished study, and another that shares a model with it."""
    shutil.copytree(two_once / "store", tmp_path / "store")
    return Finished(tmp_path)


def aged(finished, *paths):
    """Makes files look as if they had been written long ago."""
    for path in paths:
        then = time.time() - YOUNG - 60
        os.utime(finished.folder / "store" / path, (then, then))


def test_all_that_was_run_is_kept(two):
    before = two.bytes()
    found = clean(two)
    assert found.items == ()
    assert found.studies == {"finished": 4, "other": 2}
    assert two.bytes() == before


def test_a_forgotten_study_goes_and_the_others_are_whole(two, run_plan):
    before = two.bytes()
    found = look(two.reader, {}, ["other"])
    assert two.bytes() == before  # a dry run
    counts = {kind: count["items"] for kind, count in found.counts.items()}
    assert counts["models"] == counts["trials"] == 1
    assert counts["outcomes"] == two.results // 4
    clean(two, forget=["other"])
    left = two.bytes()
    assert left.items() <= before.items()
    sizes = sum(len(data) for data, _ in before.values()) - sum(len(d) for d, _ in left.values())
    assert sum(count["bytes"] for count in found.counts.values()) == sizes
    assert all(is_complete(trial, two.store) for trial in two.plan.trials)
    (gone,) = (t for t in two.planned(**OTHER).trials if t.labels.keys() == {"arcface"})
    assert not [path for path in two.store.files() if gone.id in path]
    _, said = run_plan(two.plan, two.folder)
    assert "to run" not in said
    assert {path: item for path, item in two.bytes().items() if path in left} == left
    assert not (two.folder / "store" / "outcomes" / gone.id).exists()  # no empty folders
    assert not [path for path in two.store.files() if path.startswith("studies/other/")]


def test_a_file_that_is_named_is_kept_as_it_is_now(finished):
    fewer = finished.planned(methods={"sce": {"loss": "sce"}})
    clean(finished, fewer, forget=["finished"])
    assert finished.store.entries("models") == {trial.id for trial in fewer.trials}
    (trial,) = fewer.trials
    assert finished.store.entries(f"outcomes/{trial.id}") == trial.result_ids


def test_of_a_model_that_is_kept_results_go_that_nothing_refers_to(finished):
    fewer = finished.planned(diagnostics={})
    found = clean(finished, fewer, forget=["finished"])
    assert found.counts["outcomes"]["items"] == 4
    assert "models" not in found.counts
    assert all(is_complete(trial, finished.store) for trial in fewer.trials)


def test_nothing_goes_that_only_an_earlier_run_refers_to(finished):
    note(finished.planned(methods={"sce": {"loss": "sce"}}), finished.store)
    assert clean(finished).items == ()
    assert len(noted(finished.store)["finished"]) == 2


def test_halves_go_when_they_are_old_and_stay_while_they_may_be_written(finished):
    trial = finished.plan.trials[0].id
    halves = [
        "models/0123456789abcdef/weights.00000000.safetensors",
        f"trials/{trial}/record.00000000.json",  # of a crash between manifest and deletion
        f"trials/{trial}/manifest.json.0a1b2c3d.tmp",
        "studies/finished/shards/1-of-3.json.0a1b2c3d.taken",
    ]
    for path in halves:
        finished.store.put(path, b"half")
    found = clean(finished)
    assert (found.items, found.young) == ((), 4)
    aged(finished, *halves[:3])
    found = clean(finished)
    assert (found.counts["half-written"]["items"], found.young) == (3, 1)
    assert not set(halves[:3]) & finished.store.files().keys()
    assert halves[3] in finished.store.files()
    assert all(is_complete(each, finished.store) for each in finished.plan.trials)
    assert finished.reader.read(f"trials/{trial}")


def test_what_a_search_has_tried_is_kept_though_its_driver_was_killed(finished):
    model = "0123456789abcdef"
    tried = json.dumps([{"model_id": model, "number": 0}]).encode()
    finished.store.write("studies/killed/searches/a", {"suggestions.json": tried})
    for entry in (f"models/{model}", f"outcomes/{model}/fedcba9876543210"):
        finished.store.write(entry, {"x.json": b"{}"})
    assert clean(finished).items == ()
    assert clean(finished, forget=["killed"]).counts.keys() == {"models", "outcomes", "studies"}


def test_a_forgotten_study_whose_file_is_named_keeps_its_searches(finished):
    finished.store.write("studies/finished/searches/a", {"suggestions.json": b"[]"})
    found = clean(finished, finished.plan, forget=["finished"])
    assert found.counts["studies"]["items"] == 3  # the note's files
    assert finished.store.has("studies/finished/searches/a")


def test_what_was_set_aside_goes(finished):
    entry = finished.spoil("outcomes")
    with pytest.raises(DamagedEntry):
        finished.store.read(entry)
    before = finished.store.files()
    found = clean(finished)
    gone = before.keys() - finished.store.files().keys()
    assert found.counts == {"damaged": {"items": len(gone), "bytes": sum(before[p] for p in gone)}}
    assert not [path for path in finished.store.files() if path.startswith("damaged")]


def test_files_of_the_users_own_stay(finished):
    own = ("notes.txt", "models/readme.md", "models/mine/a.pt", "my/a/manifest.json", "my/a/x.tmp")
    for path in own:
        finished.store.put(path, b"mine")
    aged(finished, *own)
    clean(finished, finished.planned(seeds=[5]), forget=["finished"])
    assert set(own) <= finished.store.files().keys()


def test_a_crash_leaves_nothing_that_looks_whole(two, monkeypatch):
    real, deleted = Store.delete, []

    def delete(store, path):
        if "lock.json" not in path and len(deleted) == 1:
            raise KeyboardInterrupt
        deleted.append(path)
        real(store, path)

    monkeypatch.setattr(Store, "delete", delete)
    with pytest.raises(KeyboardInterrupt):
        clean(two, forget=["other"])
    assert deleted[0].endswith(MANIFEST)


@pytest.mark.parametrize("study", ["finished", "other", "new"])
def test_nothing_goes_while_a_study_is_run(two, study):
    before = two.bytes()
    with (
        StudyLock(two.store, study),
        pytest.raises(StudyIsRunning, match=f"{study!r} is being run"),
    ):
        clean(two, forget=["other"])
    assert {path: item for path, item in two.bytes().items() if "lock" not in path} == before


def test_no_study_begins_while_the_store_is_cleaned(finished, run_plan):
    with cleaning(finished.store):
        with pytest.raises(StudyIsRunning, match="the store is being cleaned by"):
            run_plan(finished.plan, finished.folder)
        with pytest.raises(StudyIsRunning, match="the store is being cleaned by"):
            clean(finished)
    assert not [path for path in finished.store.files() if path.endswith("lock.json")]
    with StudyLock(finished.store, "finished"):
        pass


def test_a_cleaner_that_lost_its_lock_stops(finished):
    found = look(finished.reader, {}, ["finished"])
    before = finished.bytes()
    lock = StudyLock(finished.store, CLEANING)
    lock.lost = True
    with pytest.raises(StudyIsRunning, match="took the store over"):
        remove(finished.store, found.items, lock)
    assert finished.bytes() == before


def test_a_store_that_knows_no_study_is_left_alone(finished):
    for name in finished.store.entries("studies/finished/refers"):
        finished.store.remove(f"studies/finished/refers/{name}")
    with pytest.raises(NothingKept, match="name the files and presets to keep"):
        look(finished.reader, {}, [])
    assert clean(finished, finished.plan).items == ()


def test_an_empty_store_has_nothing_to_clean(tmp_path):
    store = Store(str(tmp_path / "store"), set_aside=False)
    assert look(store, {}, []).items == ()
    assert not list(tmp_path.iterdir())


def test_an_unknown_study_is_told_with_the_nearest(finished):
    with pytest.raises(UnknownStudy, match="did you mean 'finished'"):
        look(finished.reader, {}, ["finish"])


def test_a_damaged_note_stops_everything_and_is_made_anew(finished):
    entry = finished.spoil("studies/finished/refers")
    with pytest.raises(DamagedEntry, match=entry):
        look(finished.reader, {}, [])
    note(finished.plan, finished.store)
    assert noted(finished.reader) == {"finished": [wanted_by(finished.plan)]}


def test_progress_of_an_unfinished_model_is_its_studys(finished):
    trial = finished.planned(seeds=[3]).trials[0]
    for id in (trial.id, "0123456789abcdef"):
        finished.store.write(f"progress/{id}", {"progress.json": json.dumps({}).encode()})
    note(finished.planned(seeds=[3]), finished.store)
    found = clean(finished)
    assert found.counts.keys() == {"progress"}
    assert finished.store.entries("progress") == {trial.id}


def test_the_command_deletes_when_it_is_told_to(two):
    def command(*options):
        """What `study clean` prints."""
        done = CliRunner().invoke(app, ["clean", "--storage", two.store.url, *options])
        assert done.exit_code == 0, done.output
        return done.output

    before = two.bytes()
    output = command("--forget", "other")
    assert "kept: finished, 4 models" in output
    assert "nothing was deleted: --yes does it" in output
    counts = json.loads(command("--forget", "other", "--json"))["to remove"]
    assert counts["models"]["items"] == 1
    assert two.bytes() == before
    file = two.planned(**OTHER).file.source
    counts = json.loads(command(file, "--forget", "other", "--json"))["to remove"]
    assert counts.keys() == {"studies"}  # its note, which is then made anew
    assert "kept: other, 2 models" in command(file, "--forget", "finished", "--yes")
    assert two.store.entries("models") == {trial.id for trial in two.planned(**OTHER).trials}
    assert noted(two.store).keys() == {"other"}
    assert "nothing to clean" in command("--yes")
