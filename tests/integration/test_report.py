"""`study report` from MLflow alone."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from .browser import opened

STUDY = Path(sys.executable).with_name("study")


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


@pytest.fixture
def page(finished):
    """The report of a finished study."""
    made = finished.path / "results" / "reports" / "tiny" / "index.html"
    if not made.exists():
        finished.study("report", "tiny.yaml")
    return made


@pytest.fixture
def browse(page, tmp_path):
    """Runs `look(page)` in a browser that has the report open; its console stays silent."""
    chromium = shutil.which("chromium")
    if not chromium:  # CI allows no skip
        pytest.skip("no chromium: `make ci-deps` installs it, as root")

    async def browsed(look):
        async with opened(chromium, tmp_path / "profile", page.as_uri()) as shown:
            await look(shown)
            assert shown.errors == []

    return lambda look: asyncio.run(browsed(look))


def test_the_surface_turns_under_the_mouse(browse):
    async def look(page):
        await page.until("document.querySelector('.gl-container canvas')")
        await page.until("document.querySelector('.js-plotly-plot')._fullLayout.scene._scene")
        await page.value("document.querySelector('.js-plotly-plot').scrollIntoView()")
        camera = (
            "JSON.stringify(document.querySelector('.js-plotly-plot')"
            "._fullLayout.scene._scene.getCamera().eye)"
        )
        drawn = "document.querySelector('.gl-container canvas')"
        box = json.loads(await page.value(f"JSON.stringify({drawn}.getBoundingClientRect())"))
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        before = await page.value(camera)
        await page.drag(middle, (middle[0] + 180, middle[1] + 40))
        await page.until(f"{camera} !== {json.dumps(before)}")

    browse(look)


def test_tables_sort_by_mouse_and_by_key(browse):
    column = (
        "[...document.querySelectorAll('#accuracy table')[0].tBodies[0].rows]"
        ".map(row => row.cells[4].textContent.trim())"
    )
    head = "document.querySelectorAll('#accuracy table')[0].tHead.rows"
    clean = f"[...{head}].at(-1).cells[4]"

    async def look(page):
        assert await page.value(f"{clean}.textContent") == "Clean"
        await page.value(f"{clean}.querySelector('button').click()")
        falling = [float(text.split()[0].rstrip("†")) for text in await page.value(column)]
        assert falling == sorted(falling, reverse=True)
        assert len(set(falling)) > 1
        assert await page.value(f"{clean}.getAttribute('aria-sort')") == "descending"
        await page.value(f"{clean}.querySelector('button').focus()")
        await page.press("Enter", 13)
        rising = [float(text.split()[0].rstrip("†")) for text in await page.value(column)]
        assert rising == sorted(falling)
        assert await page.value(f"{clean}.getAttribute('aria-sort')") == "ascending"

    browse(look)


def test_a_link_opens_the_methods_page_and_paper_shows_all(browse):
    unread = "document.querySelectorAll('details:not([open])').length"

    async def look(page):
        link = "document.querySelector('#answer tbody a')"
        anchor = await page.value(f"{link}.hash.slice(1)")
        folded = f"document.getElementById({json.dumps(anchor)})"
        assert await page.value(f"{folded}.open") is False
        await page.value(f"{link}.focus()")
        await page.press("Enter", 13)
        await page.until(f"{folded}.open")
        before = await page.value(unread)
        assert before > 0
        await page.value("dispatchEvent(new Event('beforeprint'))")
        assert await page.value(unread) == 0
        await page.value("dispatchEvent(new Event('afterprint'))")
        assert await page.value(unread) == before

    browse(look)


def test_the_page_is_dark_where_the_reader_is_and_prints_and_needs_no_network(browse):
    ground = "getComputedStyle(document.body).backgroundColor"

    async def look(page):
        assert await page.value(ground) == "rgb(255, 255, 255)"
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        await page.call("Emulation.setEmulatedMedia", features=[feature])
        assert await page.value(ground) == "rgb(21, 24, 28)"
        printed = await page.call("Page.printToPDF")
        assert base64.b64decode(printed["data"]).startswith(b"%PDF")
        loaded = await page.value("performance.getEntriesByType('resource').map(one => one.name)")
        assert not [name for name in loaded if name.startswith("http")]

    browse(look)


def test_latex_compiles(finished, page, tmp_path):
    pdflatex = shutil.which("pdflatex")
    if not pdflatex:  # CI allows no skip
        pytest.skip("no pdflatex: `make ci-deps` installs it, as root")
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + (page.parent / "table.tex").read_text()
        + "\\end{document}\n"
    )
    halting = ["-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    made = subprocess.run(
        [pdflatex, *halting], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")


def test_claims_of_ones_own_are_judged_and_the_page_opens(finished, tmp_path):
    claims = tmp_path / "mine.yaml"
    claims.write_text(
        "claims: [{id: mine, claim: My <b>loss</b> wins., arm: nobody, better_than: [sce]}]"
    )
    done = subprocess.run(
        [STUDY, "report", "tiny.yaml", "--open", "--claims", claims, "--output", tmp_path / "made"],
        cwd=finished.path,
        env={**os.environ, "BROWSER": "echo opened %s"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made"
    assert f"opened {(made / 'index.html').as_uri()}" in done.stdout
    page = (made / "index.html").read_text()
    assert "My &lt;b&gt;loss&lt;/b&gt; wins." in page
    assert "no result of nobody there" in page
    assert "mine,My <b>loss</b> wins." in (made / "claims.csv").read_text()


def test_a_mistake_in_claims_writes_nothing(finished, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("claims: [{id: mine, claim: x, arm: sce, beter_than: [x]}]")
    done = subprocess.run(
        [STUDY, "report", "tiny.yaml", "--claims", mine, "--output", tmp_path / "made"],
        cwd=finished.path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stdout
    assert "claims.0.beter_than" in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_figure_of_a_formula_needs_no_training(folder):
    assert "nothing to train" in folder.study("run", "figure5")
    output = folder.study("report", "figure5")
    page = (folder.path / "results" / "reports" / "figure5" / "index.html").read_text()
    assert "results/reports/figure5/index.html" in output
    assert "Three panels" in page and "First answer" not in page
    assert "z is above 0 at each of 250000 points" in page
