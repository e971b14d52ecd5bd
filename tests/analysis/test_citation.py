"""How to cite a study, and how to repeat it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from analysis.citation import bibtex, repeat
from analysis.plan import Plan
from analysis.runs import Results


def test_the_citation_identifies_source_and_study_file(small: Results) -> None:
    digest = hashlib.sha256(small.study_file.encode()).hexdigest()[:16]
    told = bibtex(small)
    assert f"note = {{Source abc123, study file SHA-256 {digest}}}" in told
    other = bibtex(replace(small, study_file="study: other"))
    assert digest not in other
    assert told.count("@") == 2
    assert told.count("{") == told.count("}")


def test_odd_names_stay_bibtex(small: Results) -> None:
    named = replace(small, plan=Plan({**small.plan.raw, "study": "a_b@small"}))
    assert "@software{a-b-small," in bibtex(named)
    assert r"Study: a\_b@small" in bibtex(named)


def test_to_repeat_takes_the_commit_and_both_commands(small: Results) -> None:
    lines = repeat(small, "study report small").splitlines()
    assert lines == ["git checkout abc123", "make env", "study run small", "study report small"]
    provenance = {**small.plan.provenance, "git": "unknown"}
    installed = replace(small, plan=Plan({**small.plan.raw, "provenance": provenance}))
    assert repeat(installed, "x").splitlines()[0] == "make env"
