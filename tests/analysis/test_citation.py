"""How to cite a study, and how to repeat it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version

from analysis.citation import bibtex, repeat, sentence
from analysis.plan import Plan
from analysis.runs import Results


def test_the_citation_identifies_source_and_study_file() -> None:
    digest = hashlib.sha256(b"study: small").hexdigest()[:16]
    told = bibtex("small", "study: small", "abc123")
    assert f"note = {{Source abc123, study file SHA-256 {digest}}}" in told
    assert digest not in bibtex("small", "study: other", "abc123")
    assert told.count("@") == 2
    assert told.count("{") == told.count("}")
    words = sentence("small", "study: small", "abc123")
    assert words.endswith(f"source abc123, study small (file SHA-256 {digest}).")


def test_without_a_study_it_is_the_software_that_is_cited() -> None:
    told = bibtex("", "", "abc123")
    assert told.startswith("@software{robust-loss-study,\n  title = {Robust Loss Study},")
    assert f"version = {{{version('robust-loss-study')}}}" in told
    assert "note = {Source abc123}" in told
    assert told.count("{") == told.count("}")
    assert sentence("", "", "abc123").endswith(", source abc123.")


def test_odd_names_stay_bibtex() -> None:
    told = bibtex("a_b@small", "", "abc123")
    assert "@software{a-b-small," in told
    assert r"Study: a\_b@small" in told


def test_to_repeat_takes_the_commit_and_both_commands(small: Results) -> None:
    lines = repeat(small, "study report small").splitlines()
    assert lines == ["git checkout abc123", "make env", "study run small", "study report small"]
    provenance = {**small.plan.provenance, "git": "unknown"}
    installed = replace(small, plan=Plan({**small.plan.raw, "provenance": provenance}))
    assert repeat(installed, "x").splitlines()[0] == "make env"
