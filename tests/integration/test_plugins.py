"""A package of one's own components, used by the real command without a fork."""

import os
import shutil
from pathlib import Path

from trainables import names

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def test_the_example_runs_in_ray_workers_from_a_study_file(folder):
    shutil.copytree(EXAMPLE, folder.path / "mine")
    where = {"PYTHONPATH": "mine"}  # relative: workers start in another folder
    output = folder.study("run", "mine/study.yaml", "--set", "seeds=1", **where)
    assert "3 of 3 trials have all their results" in output
    runs = folder.runs("plugin")
    assert {run.data.params["loss"] for run in runs} == {"sce", "focal"}
    assert {run.data.params["dataset"] for run in runs} == {"tiny_digits"}
    assert {run.data.params["backbone"] for run in runs} == {"mlp"}
    assert all(run.data.metrics[names.CLEAN] > 0.8 for run in runs)
    assert all(any("sign_noise" in key for key in run.data.metrics) for run in runs)
    folder.study("report", "mine/study.yaml", **where)
    assert (folder.path / "results/reports/plugin/index.html").exists()


def test_a_change_of_the_plugins_source_makes_its_results_anew_and_no_others(folder):
    shutil.copytree(EXAMPLE, folder.path / "mine")
    run = ("run", "mine/study.yaml", "--local", "--set", "seeds=1", "--set", "data=mnist5k")
    fast = ("--set", "training.epochs=1", "--set", "backbone=lenet5", "--set", "evaluate.test=9")
    folder.study(*run, *fast, PYTHONPATH="mine")
    before = folder.entries("models")
    source = folder.path / "mine/robust_extras/focal.py"
    source.write_text(source.read_text().replace("focusing", "focussing"))
    folder.study(*run, *fast, PYTHONPATH="mine")
    after = folder.entries("models")
    assert len(before) == 3
    assert len(after) == 5  # SCE's model stands, the two of the plugin are new
    assert before.items() <= after.items()


def test_an_installed_package_is_found_by_its_entry_point(folder, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE / "robust_extras", site / "robust_extras")
    info = site / "robust_extras-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robust-extras\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[robust_loss_study.plugins]\nextras = robust_extras:focal\nbroken = no_such_module\n"
    )
    changed = ("--set", "methods.sce.loss={name: focal, gamma: 1}", "--set", "training.epochs=1")
    output = folder.study("plan", "tiny.yaml", *changed, PYTHONPATH=str(site))
    assert "tiny: 5 models" in output  # the broken one is in nobody's way
    wrong = ("--set", "methods.sce.loss=vocal")
    output = folder.study("plan", "tiny.yaml", *wrong, expect=2, PYTHONPATH=str(site))
    assert "did you mean 'focal'?" in output
    assert "cannot import plugin 'no_such_module'" in output
    output = folder.study("plan", "tiny.yaml", *changed, expect=2)
    assert "unknown loss 'focal'" in output


def test_a_plugin_that_is_not_there_starts_nothing(folder):
    output = folder.study("run", "tiny.yaml", "--set", "plugins=[no_such_plugin]", expect=2)
    assert "plugins.0: cannot import plugin 'no_such_plugin'" in output
    assert "Traceback" not in output
    assert not (folder.path / "results").exists()


def test_the_working_folder_shadows_nothing(folder):
    for package in ("analysis", "trainables", "robust_extras"):
        (folder.path / package).mkdir()
        (folder.path / package / "__init__.py").write_text("raise SystemExit('shadowed')")
    environment = {"PYTHONPATH": os.fspath(EXAMPLE)}
    output = folder.study("plan", str(EXAMPLE / "study.yaml"), **environment)
    assert "plugin: 6 models" in output
