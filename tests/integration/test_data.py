"""Data sets that are not embedded: found, missing, damaged, as users meet them."""

import os
import shutil
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / "shared" / "data"
NO_NETWORK = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
MNIST = ("run", "tiny.yaml", "--local", "--set", "data={name: mnist, subset: {train: 200}}")


def test_every_method_trains_on_real_colour_images_on_both_backbones(folder):
    if not (REAL / "cifar-10-batches-py").exists():
        pytest.skip("the files of CIFAR-10 are not beside the repository")
    small = ("data.subset={train: 20, validation: 10, test: 10}", "evaluate.validation=4")
    short = ("evaluate.test=4", "training.epochs=1", "training.batch_size=10")
    options = [part for key in (*small, *short) for part in ("--set", key)]
    output = folder.study("run", "methods-cifar10", *options, STUDY_DATA=str(REAL))
    assert "20 of 20 trials have all their results" in output
    runs = folder.runs("methods-cifar10")
    assert len({run.data.params["method"] for run in runs}) == 10
    assert {run.data.params["backbone"] for run in runs} == {"resnet32", "cnn8"}
    assert all(run.data.params["dataset.subset.train"] == "20" for run in runs)
    folder.study("report", "methods-cifar10")
    table = (folder.path / "results/reports/methods-cifar10/table.md").read_text()
    assert "at-linf" in table


def test_data_that_cannot_be_had_start_nothing_and_say_what_to_put_where(folder):
    output = folder.study(*MNIST, "--data", "here", expect=2, **NO_NETWORK)
    assert "Traceback" not in output
    assert str(folder.path / "here") in output
    assert "train-images-idx3-ubyte.gz" in output
    assert "--data" in output
    assert not folder.entries("models")
    assert not (folder.path / "results" / "mlflow.db").exists()


def test_data_that_cannot_be_fetched_are_told(folder):
    missing = ("data", "fetch", "mnist5k", "mnist", "--data", "here")
    output = folder.study(*missing, expect=2, **NO_NETWORK)
    assert output.startswith("mnist5k: nothing to download\n")
    assert "train-images-idx3-ubyte.gz" in output
    assert "did you mean 'mnist'" in folder.study("data", "fetch", "mnits", expect=2)


def test_data_that_lie_there_are_checked_by_fetch(folder):
    if not (REAL / "MNIST").exists():
        pytest.skip("the files of MNIST are not beside the repository")
    shutil.copytree(REAL / "MNIST", folder.path / "here" / "MNIST")
    output = folder.study("data", "fetch", "mnist", "--data", "here", **NO_NETWORK)
    assert f"mnist: whole, in {folder.path / 'here'}" in output


def test_a_damaged_file_is_named_with_both_checksums(folder):
    raw = folder.path / "here" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        (raw / f"{name}-idx{3 if 'images' in name else 1}-ubyte.gz").write_bytes(b"not these")
    before = {path: path.read_bytes() for path in raw.iterdir()}
    output = folder.study(*MNIST, "--data", "here", expect=2, **NO_NETWORK)
    assert "f68b3c2dcbeaaa9fbdd348bbdeb94873" in output  # the published one
    assert "Traceback" not in output
    assert {path: path.read_bytes() for path in raw.iterdir() if path in before} == before


def test_real_digits_are_read_where_they_lie_and_from_workers(folder):
    if not (REAL / "MNIST").exists():
        pytest.skip("the files of MNIST are not beside the repository")
    shutil.copytree(REAL / "MNIST", folder.path / "here" / "MNIST")
    for path in (folder.path / "here").rglob("*"):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    keys = ("--set", "data={name: mnist, subset: {train: 200}}", "--set", "training.epochs=1")
    output = folder.study("run", "tiny.yaml", *keys, "--data", "here")
    assert "5 of 5 trials have all their results" in output
    assert {run.data.params["dataset"] for run in folder.runs()} == {"mnist"}
