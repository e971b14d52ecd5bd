"""Measuring again: honest results agree to the bit, changed ones do not."""

import json
import random

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from study.cli import app
from study.site import Site
from study.verify import (
    DIFFERS,
    OTHERWISE,
    SAME_BITS,
    Comparison,
    _spread,
    agree,
    damaged_entries,
    measured_again,
    sample_size,
    summary,
    trained_again,
)
from trainables.errors import BadSample, IncompleteStudy


@pytest.fixture
def again(finished):
    """Measures (or trains) a sample of the finished study again."""

    def start(sample="100%", seed=0, do=measured_again):
        plan = finished.plan
        site = Site(finished.reader, str(finished.folder), plan.resources, plan.plugins)
        return list(do(plan, site, sample, seed))

    return start


def changed(finished, trial, name, **record):
    """Turns an image's outcome around in the store, as if its execution had been another."""
    entry = f"outcomes/{trial.id}/{trial.cell_ids[name]}"
    objects = finished.store.read(entry)
    arrays = safetensors.numpy.load(objects["outcome.safetensors"])
    passes = json.loads(objects["outcome.json"])["passes"]
    arrays["correct_after"][0] = passes - arrays["correct_after"][0]
    execution = {**json.loads(objects["execution.json"]), **record}
    objects["outcome.safetensors"] = safetensors.numpy.save(arrays)
    finished.store.write(entry, {**objects, "execution.json": json.dumps(execution).encode()})


def test_honest_results_have_the_same_bits_and_nothing_is_changed(finished, again):
    before = finished.bytes()
    found = again()
    assert len(found) == finished.results - 4  # a diagnostic is no attack
    assert {one.verdict for one in found} == {SAME_BITS}
    assert agree(found)
    assert finished.bytes() == before


@pytest.mark.parametrize("record", [{}, {"gpu": 0.25}])  # a share changes no bits
def test_a_changed_outcome_is_found(finished, again, record):
    trial = finished.plan.trials[0]
    name = max(trial.cells)
    changed(finished, trial, name, **record)
    found = again()
    assert [(one.trial, one.what) for one in found if one.verdict == DIFFERS] == [
        (trial.name, name)
    ]
    assert not agree(found)


def test_a_changed_model_is_found(finished, again):
    one, other, *_ = (f"models/{trial.id}" for trial in finished.plan.trials)
    weights = finished.store.read(other)["weights.safetensors"]
    finished.store.write(one, {**finished.store.read(one), "weights.safetensors": weights})
    assert not agree(again("100%"))
    assert DIFFERS in {found.verdict for found in again("100%", do=trained_again)}


def test_models_trained_again_have_the_same_weights(finished, again):
    before = finished.bytes()
    (found,) = again("1%", do=trained_again)
    assert (found.what, found.verdict) == ("training", SAME_BITS)
    assert finished.bytes() == before


def test_another_machine_may_differ_in_few_outcomes(finished, again):
    trial = finished.plan.trials[0]
    changed(finished, trial, max(trial.cells), host="elsewhere")
    found = again()
    (apart,) = (one for one in found if one.verdict == OTHERWISE)
    assert apart.differing == pytest.approx(1)
    assert not agree(found)  # 1 of 8
    assert "of 1 made otherwise 12 % of outcomes differ, at most 0.5 % may" in summary(found)
    many = Comparison("a", "b", alike=False, equal=True, n=192, differing=0)
    assert agree([*found, many])
    assert not agree([*found, many, apart])


def test_a_sample_is_drawn_by_its_seed_and_spread_over_models(again):
    first = [(one.trial, one.what) for one in again("4")]
    assert [(one.trial, one.what) for one in again("4")] == first
    assert len({trial for trial, _ in first}) == 4
    assert [(one.trial, one.what) for one in again("4", seed=1)] != first


@given(counts=st.lists(st.integers(0, 5), max_size=5), seed=st.integers(0, 9))
def test_all_are_drawn_once_and_no_model_twice_before_all_others(counts, seed):
    cells = {str(id): [f"{n}" for n in range(count)] for id, count in enumerate(counts)}
    drawn = list(_spread(cells, random.Random(seed)))
    assert sorted(drawn) == sorted((id, name) for id, names in cells.items() for name in names)
    rounds = [sum(before == id for before, _ in drawn[:at]) for at, (id, _) in enumerate(drawn)]
    assert rounds == sorted(rounds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1%", 7), ("0.5%", 4), ("100%", 680), ("20", 20), ("1000", 680), (" 3 ", 3), ("1e-9%", 1)],
)
def test_samples_are_shares_or_numbers(text, size):
    assert sample_size(text, 680) == size


@pytest.mark.parametrize(
    "text", ["", "%", "0", "0%", "-1", "101%", "1.5", "a", "nan", "inf", "1%%"]
)
def test_other_samples_are_mistakes(text):
    with pytest.raises(BadSample, match="expected a share such as 1% or a whole number"):
        sample_size(text, 680)


def test_digests_are_checked_and_damage_is_left(finished):
    entries = 4 + 4 + finished.results
    assert damaged_entries(finished.plan, finished.reader) == (entries, [])
    entry = finished.spoil("outcomes")
    before = finished.bytes()
    checked, damaged = damaged_entries(finished.plan, finished.reader)
    assert checked == entries - 1
    assert len(damaged) == 1 and entry in damaged[0]
    assert finished.bytes() == before


def test_the_command_ends_with_1_where_results_are_damaged_or_differ(finished):
    def command(*options):
        """What `study verify` of the study prints, and its exit status."""
        place = ("--storage", str(finished.store.url), *options)
        done = CliRunner().invoke(app, ["verify", finished.plan.file.source, *place])
        return done.output, done.exit_code

    output, status = command("--sample", "3")
    assert status == 0
    assert f"the digests of {8 + finished.results} entries agree" in output
    assert "3 of 3 made again as they were have the same bits" in output
    trial = finished.plan.trials[0]
    changed(finished, trial, max(trial.cells))
    output, status = command("--sample", "100%")
    assert status == 1
    assert output.count(DIFFERS) == 1
    entry = finished.spoil("outcomes")
    output, status = command()
    assert status == 1
    assert f"store entry {entry} is damaged" in output
    assert isinstance(
        CliRunner().invoke(app, ["verify", "x", "--sample", "no"]).exception, BadSample
    )


def test_without_models_nothing_can_be_measured_again(finished, again):
    for model in finished.store.entries("models"):
        finished.store.remove(f"models/{model}")
    for do in (measured_again, trained_again):
        with pytest.raises(IncompleteStudy, match="no model of finished"):
            again(do=do)


def test_shares_of_passes_count_for_models_that_draw(finished, again):
    (trial,) = (trial for trial in finished.plan.trials if trial.model.transform.stochastic)
    name = max(trial.cells)
    entry = f"outcomes/{trial.id}/{trial.cell_ids[name]}"
    arrays = safetensors.numpy.load(finished.store.read(entry)["outcome.safetensors"])
    passes = arrays["by_pass"].shape[1]
    assert passes > 1
    changed(finished, trial, name)
    (found,) = (one for one in again() if one.verdict == DIFFERS)
    turned = np.abs(passes - 2 * arrays["correct_after"][0]) / passes
    assert found.differing == pytest.approx(turned)
