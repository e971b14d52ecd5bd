"""A network that was trained elsewhere, by the real command: attacked, and in the report."""

import shutil
from pathlib import Path

import torch

from trainables import names

EXAMPLE = Path(__file__).parents[2] / "examples" / "checkpoint"
FEW = ("--set", "training.epochs=1", "--set", "evaluate.test=30", "--set", "evaluate.validation=9")


def test_a_network_of_ones_own_is_attacked_and_listed(folder):
    shutil.copytree(EXAMPLE, folder.path / "mine")
    where = {"PYTHONPATH": "mine"}  # the folder of the study file is not searched
    output = folder.study("run", "mine/study.yaml", "--local", *FEW, **where)
    assert "2 of 2 trials have all their results" in output
    (run,) = (run for run in folder.runs("checkpoint") if "checkpoint.file" in run.data.params)
    assert run.data.params["backbone"] == "small_net:SmallNet"
    assert run.data.metrics[names.CLEAN] > 0.9
    assert run.data.metrics[names.TRAIN_SECONDS] == 0
    assert names.TRAIN_LOSS not in run.data.metrics
    assert run.data.tags[names.EVIDENCE] == names.EXPLORATORY
    output = folder.study("report", "mine/study.yaml", *FEW, **where)
    assert "\nsmall_net:SmallNet/mnist5k\n" in output
    assert any(line.startswith("theirs") for line in output.splitlines())


def test_a_pickle_starts_nothing(folder):
    torch.save({}, folder.path / "best.pth")
    method = "methods.sce={loss: sce, checkpoint: best.pth, seeds: 2}"
    output = folder.study("run", "tiny.yaml", "--set", method, expect=2)
    assert "Traceback" not in output
    assert "2 mistakes, nothing was started" in output
    assert "safetensors.torch.save_file(torch.load('best.pth'" in output
    assert not (folder.path / "results").exists()
