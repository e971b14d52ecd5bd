"""Bundles: what goes out comes in elsewhere; whatever is wrong with one changes nothing."""

import hashlib
import json
import shutil
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from study.bundle import MANIFEST, export, import_bundle
from study.cli import app
from study.files import read_study
from study.lock import StudyLock
from study.plan import make_plan
from study.references import noted, wanted_by
from study.results import is_complete
from trainables.errors import (
    BadBundle,
    Contradiction,
    DamagedEntry,
    IncompleteStudy,
    InvalidStudy,
    StudyIsRunning,
)
from trainables.store import Store

from .conftest import Finished


@pytest.fixture
def bundled(finished):
    """Exports the finished study, or another plan; gives the bundle's path."""

    def make(plan=None, *, models=False, partial=False, name="a.zip"):
        target = finished.folder / name
        export(plan or finished.plan, finished.reader, target, models=models, partial=partial)
        return target

    return make


@pytest.fixture(scope="module")
def kept(finished_once, tmp_path_factory):
    """A bundle with models, to be looked at, and its members."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(finished_once / "store", folder / "store")
    finished = Finished(folder)
    path = folder / "a.zip"
    export(finished.plan, finished.reader, path, models=True, partial=False)
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, members, **manifest):
    """A bundle of other members and keys of the manifest."""
    contents = {**json.loads(members[MANIFEST]), **manifest}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, MANIFEST: json.dumps(contents).encode()}.items():
            archive.writestr(name, data)
    return path


def with_member(members, name, data=b"x", **changes):
    """Members of which one is new, and as the manifest lists it."""
    contents = json.loads(members[MANIFEST])
    listed = {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    contents["files"].append({**listed, **changes})
    return {**members, name: data, MANIFEST: json.dumps(contents).encode()}


def everything(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_the_same_results_give_the_same_bytes(finished, bundled):
    first = bundled(name="a.zip").read_bytes()
    assert bundled(name="b.zip").read_bytes() == first
    assert not list(finished.folder.glob("*.tmp"))


def test_what_goes_out_comes_in_and_nothing_has_to_be_run(finished, bundled, tmp_path):
    before = finished.bytes()
    there = tmp_path / "there"
    there.mkdir()
    store = Store(str(there / "store"))
    done = import_bundle(bundled(), store, there)
    assert finished.bytes() == before
    assert all(is_complete(trial, store) for trial in done.plan.trials)
    assert not store.entries("models")  # the weights stayed behind
    for trial in finished.plan.trials:
        entries = [f"trials/{trial.id}"]
        entries += [f"outcomes/{trial.id}/{id}" for id in trial.result_ids]
        for entry in entries:
            assert store.read(entry) == finished.store.read(entry)
    assert noted(store) == {"finished": [wanted_by(finished.plan)]}
    assert done.file == there / "finished.yaml" and done.file.exists()
    again = import_bundle(tmp_path / "a.zip", store, there)
    assert (again.written, again.known) == (0, done.written)
    assert not again.differing


def test_models_go_along_where_they_are_asked_for(finished, bundled, tmp_path):
    store = Store(str(tmp_path / "there"))
    import_bundle(bundled(models=True), store, tmp_path)
    assert store.entries("models") == finished.store.entries("models")
    assert bundled().stat().st_size < bundled(models=True).stat().st_size / 5


def test_a_bundle_says_what_it_is_of(kept, finished):
    _, members = kept
    contents = json.loads(members[MANIFEST])
    assert contents["study"]["name"] == "finished"
    assert contents["lacking"] == 0
    assert contents["provenance"]["versions"].keys() >= {"torch", "robust-loss-study"}
    assert contents["provenance"]["data"].keys() == {"mnist5k"}
    listed = {file["path"] for file in contents["files"]}
    assert listed == members.keys() - {MANIFEST}
    assert {f"models/{trial.id}/config.json" for trial in finished.plan.trials} <= listed


def test_a_study_that_lacks_results_is_refused_or_partial(finished, bundled, tmp_path):
    more = finished.planned(seeds=2)
    n = finished.results
    with pytest.raises(IncompleteStudy, match=rf"lacks {n} of {2 * n} results.*--partial"):
        bundled(more)
    assert not (tmp_path / "a.zip").exists()
    done = import_bundle(bundled(more, partial=True), Store(str(tmp_path / "there")), tmp_path)
    assert done.lacking == n
    with pytest.raises(IncompleteStudy, match=r"run it to its end$"):
        bundled(finished.planned(seeds=[7]), partial=True)
    with pytest.raises(IncompleteStudy, match="trains nothing"):
        bundled(make_plan(read_study("figure5")))


def test_a_study_of_checkpoints_is_refused(finished, bundled):
    weights = finished.store.read(f"models/{finished.plan.trials[0].id}")["weights.safetensors"]
    (finished.folder / "net.safetensors").write_bytes(weights)
    theirs = {"theirs": {"loss": "sce", "checkpoint": "net.safetensors"}}
    with pytest.raises(BadBundle, match=r"has checkpoints \(theirs\)"):
        bundled(finished.planned(methods=theirs, compare={}))


def test_damage_is_told_and_left_where_it_is(finished, bundled):
    entry = finished.spoil("outcomes")
    before = finished.bytes()
    with pytest.raises(DamagedEntry, match=entry):
        bundled()
    assert finished.bytes() == before
    assert not (finished.folder / "a.zip").exists()


def test_records_of_searches_travel_and_what_is_of_one_machine_does_not(
    finished, bundled, tmp_path
):
    finished.store.write("studies/finished/searches/a", {"suggestions.json": b"[]"})
    plain = bundled().read_bytes()
    finished.store.write("studies/finished/cost", {"cost.json": b"{}"})
    finished.store.put("studies/finished/shards/1-of-3.json", b"{}")
    store = Store(str(tmp_path / "there"))
    with StudyLock(finished.store, "finished"):
        assert bundled().read_bytes() == plain
    import_bundle(tmp_path / "a.zip", store, tmp_path)
    assert store.read("studies/finished/searches/a") == {"suggestions.json": b"[]"}
    assert {path.split("/")[2] for path in store.files("studies")} == {"searches", "refers"}


def test_an_import_contradicts_no_result(finished, bundled, tmp_path):
    bundle = bundled()
    trial = finished.plan.trials[0]
    entry = f"outcomes/{trial.id}/{min(trial.cell_ids.values())}"
    objects = finished.store.read(entry)
    finished.store.write(entry, {**objects, "execution.json": b'{"host": "elsewhere"}'})
    assert import_bundle(bundle, finished.store, tmp_path).written == 0  # only made elsewhere
    finished.store.write(entry, {**objects, "outcome.safetensors": b"other"})
    before = finished.bytes()
    with pytest.raises(Contradiction, match=entry):
        import_bundle(bundle, finished.store, tmp_path)
    assert finished.bytes() == before


def test_what_is_damaged_here_is_mended(finished, bundled, tmp_path):
    bundle = bundled()
    entry = finished.spoil("outcomes")
    assert import_bundle(bundle, finished.store, tmp_path).written == 1
    assert finished.reader.read(entry)


def test_nothing_is_imported_into_a_study_that_is_run(finished, bundled, tmp_path):
    bundle = bundled()
    finished.spoil("outcomes")
    with StudyLock(finished.store, "finished"), pytest.raises(StudyIsRunning):
        import_bundle(bundle, finished.store, tmp_path)


def test_another_study_file_is_never_overwritten(kept, tmp_path):
    (tmp_path / "finished.yaml").write_text("mine")
    done = import_bundle(kept[0], Store(str(tmp_path / "store")), tmp_path)
    assert [path.name for path in done.differing] == ["finished.yaml"]
    assert (tmp_path / "finished.yaml").read_text() == "mine"


def refused(path, folder, told, error=BadBundle):
    """Importing is refused, and nothing at all is left behind."""
    before = everything(folder)
    with pytest.raises(error, match=told):
        import_bundle(path, Store(str(folder / "store")), folder)
    assert everything(folder) == before


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "outcomes/../../evil",
        "models/0123456789abcdef/../../../evil",
        "models/0123456789abcdef/.hidden",
        "models/short/weights.safetensors",
        "progress/0123456789abcdef/weights.safetensors",
        "outcomes/0123456789abcdef/evil.json",
        "trials/0123456789abcdef/other.json",
        "studies/another/searches/a/manifest.json",
        "studies/finished/lock.json",
        "studies/finished/cost/manifest.json",
        "studies/finished/shards/1-of-3.json",
        "studies/finished/refers/a/manifest.json",
        "study/../evil.yaml",
        "study/evil.py",
        "README.md",
    ],
)
def test_paths_that_are_no_places_for_results_are_refused(kept, tmp_path, name):
    bundle = rewritten(tmp_path / "a.zip", with_member(kept[1], name))
    refused(bundle, tmp_path, "is no place for a result")


def test_other_sizes_digests_and_files_are_refused(kept, tmp_path):
    _, members = kept
    path, outcome = tmp_path / "a.zip", next(name for name in members if "outcomes" in name)
    refused(rewritten(path, {**members, outcome: b"x"}), tmp_path, "expected .* bytes, found")
    spoilt = bytes([members[outcome][0] ^ 1]) + members[outcome][1:]
    refused(rewritten(path, {**members, outcome: spoilt}), tmp_path, "expected SHA-256")
    unlisted = {**members, "outcomes/x": b""}
    refused(rewritten(path, unlisted), tmp_path, "not those that its manifest lists: outcomes/x")
    gone = {name: data for name, data in members.items() if name != outcome}
    refused(rewritten(path, gone), tmp_path, f"not those that its manifest lists: {outcome}")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"bundle": 2}, "of schema 2, this version reads 1"),
        ({"bundle": "1"}, "manifest.json, bundle"),
        ({"extra": 1}, "extra: unknown key"),
        ({"lacking": 5}, "this version gives other ids"),
        ({"files": 3}, "manifest.json, files"),
    ],
)
def test_other_manifests_are_refused(kept, tmp_path, keys, told):
    refused(rewritten(tmp_path / "a.zip", kept[1], **keys), tmp_path, told)


def test_results_of_other_models_are_refused(kept, tmp_path):
    strange = with_member(kept[1], "trials/0123456789abcdef/record.json", b"{}")
    told = "this version gives other ids to 1 of its models"
    refused(rewritten(tmp_path / "a.zip", strange), tmp_path, told)


def test_a_study_without_its_plugin_is_refused(kept, tmp_path):
    _, members = kept
    contents = json.loads(members[MANIFEST])
    contents["study"]["overrides"] = ["plugins=no_such_package"]
    bundle = rewritten(tmp_path / "a.zip", members, study=contents["study"])
    refused(bundle, tmp_path, "cannot import plugin 'no_such_package'", InvalidStudy)


@given(cut=st.integers(0, 10**6), flip=st.integers(0, 255))
def test_a_bundle_that_was_cut_or_changed_is_refused_or_whole(kept, tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp("cut")
    data = kept[0].read_bytes()
    cut %= len(data)
    changed = data[:cut] + bytes([data[cut] ^ flip]) + (data[cut + 1 :] if flip else b"")
    (folder / "a.zip").write_bytes(changed)
    store = Store(str(folder / "store"))
    try:
        import_bundle(folder / "a.zip", store, folder)
    except BadBundle:
        assert {path.name for path in folder.iterdir()} == {"a.zip"}
    else:  # a byte that nothing depends on, such as a date
        assert len(store.entries("trials")) == 4


@pytest.mark.parametrize("data", [None, b"", b"no zip"])
def test_what_is_no_bundle_is_told(tmp_path, data):
    if data is not None:
        (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", tmp_path, "expected what `study export` writes")


def test_the_commands_say_what_to_do_there(finished, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    plan = finished.planned(scales={"small": {"seeds": 1}})
    place = ("--storage", finished.store.url, "--set", "question=Why so?", "--scale", "small")
    output = str(tmp_path / "there" / "a.zip")
    done = CliRunner().invoke(app, ["export", plan.file.source, "--output", output, *place])
    assert done.exit_code == 0, done.output
    assert f"{finished.results} of {finished.results} results" in done.output
    assert "without weights" in done.output
    monkeypatch.chdir(tmp_path / "there")
    done = CliRunner().invoke(app, ["import", "a.zip"])
    assert done.exit_code == 0, done.output
    options = "finished.yaml '--set=question=Why so?' --scale=small"
    assert f"sync {options}\n" in done.output
    assert f"report {options}\n" in done.output
    assert (tmp_path / "there" / "finished.yaml").exists()
