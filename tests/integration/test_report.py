"""`study report` from MLflow alone."""

import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient


def test_report_needs_neither_store_nor_torch_nor_ray(finished, tmp_path):
    store = finished.store.rename(finished.store.with_name("hidden"))
    try:
        code = (
            "import sys; sys.argv[1:] = ['report', 'tiny.yaml', '--output', sys.argv[1]]\n"
            "from study.cli import app\n"
            "app(standalone_mode=False)\n"
            "assert not {'torch', 'ray'} & set(sys.modules), 'torch or ray was imported'"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=finished.path, check=True, timeout=300
        )
    finally:
        store.rename(finished.store)
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"index.html", "figure3.png", "figure3.pdf", "figure3.svg"}
    assert made >= {"table.md", "table.tex", "table.csv"}


def test_report_prints_the_table_and_logs_all_to_mlflow(finished):
    output = finished.study("report", "tiny.yaml")
    assert "Clean" in output
    assert "results/reports/tiny/index.html" in output
    assert "study ui" in output
    client = MlflowClient(f"sqlite:///{finished.path}/results/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'report'")
    logged = {item.path for item in client.list_artifacts(run.info.run_id, "report")}
    assert {"report/index.html", "report/figure3.png"} <= logged


def test_chromium_draws_the_page_without_errors(finished, tmp_path):
    page = finished.path / "results" / "reports" / "tiny" / "index.html"
    if not page.exists():
        finished.study("report", "tiny.yaml")
    chromium = shutil.which("chromium")
    if not chromium:  # CI allows no skip
        pytest.skip("no chromium: `make ci-deps` installs it, as root")
    options = "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic"
    options += " --no-first-run --disable-background-networking --disable-component-update"
    options += " --disable-sync --enable-logging=stderr --virtual-time-budget=20000"
    drawn = subprocess.run(
        [chromium, *options.split(), f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    console = [line for line in drawn.stderr.splitlines() if ":CONSOLE" in line]
    assert not [line for line in console if "Error" in line], console
    assert "gl-container" in drawn.stdout  # plotly made its 3-D scene


def test_a_figure_of_a_formula_needs_no_training(folder):
    assert "nothing to train" in folder.study("run", "figure5")
    output = folder.study("report", "figure5")
    page = (folder.path / "results" / "reports" / "figure5" / "index.html").read_text()
    assert "results/reports/figure5/index.html" in output
    assert "Three panels" in page and "First answer" not in page
