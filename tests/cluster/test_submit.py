"""Studies on a cluster: started by `study submit`, followed, ended; the results are the same."""

import subprocess

from trainables.store import Store

from .laptop import results

SMALL = ("--set", "training.epochs=2", "--set", "evaluate={validation: 50, test: 50}")


def test_quickstart_is_the_same_as_on_one_machine(laptop):
    laptop.await_workers(2)
    subprocess.run(f"rm -rf {laptop.lab.shared}/store", shell=True, check=True)
    said = laptop.study("submit", "quickstart", *SMALL, "--cluster", str(laptop.file))
    assert "34 of 34 trials have all their results" in said
    page = laptop.folder / "results" / "reports" / "quickstart" / "index.html"
    assert f"report: {page.relative_to(laptop.folder)}" in said
    assert "I-SCE" in page.read_text()
    home = laptop.folder / "home"
    laptop.study("run", "quickstart", *SMALL, "--local", "--storage", str(home))
    here, there = (results(Store(str(place))) for place in (home, laptop.lab.shared / "store"))
    assert here.keys() == there.keys()
    assert [key for key in here if here[key] != there[key]] == []
