from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch

from trainables.attacks.base import Attack
from trainables.attacks.clean import Clean
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.config import Cell
from trainables.datasets.base import Split
from trainables.diagnostics.embedding import Embedding
from trainables.diagnostics.theory import Theory
from trainables.evaluation import COLUMNS, accuracy, attacked, images_of, measure
from trainables.losses.sce import SCE

ATTACK = PGD(budget="l2_abs", eps=1.2, steps=5, targeted=True, random_start=True)


def cell(attack=ATTACK, split="test", n=60, seed=0):
    return Cell(probe=attack, split=split, n=n, seed=seed)


def outcome_of(model, cell, splits, **options):
    (outcome,) = attacked(model, [cell.probe], images_of(cell, splits), cell.seed, **options)
    return outcome


def test_accuracy_is_the_share_of_images_classified_rightly(sce, splits):
    with torch.no_grad():
        hits = sce(splits.test.images).argmax(dim=1) == splits.test.labels
    for batch in (500, 256, 7):
        assert accuracy(sce, splits.test, batch) == pytest.approx(float(hits.float().mean()))
    assert accuracy(sce, splits.test) > 0.93


def test_accuracy_is_taken_in_eval_mode_and_restores_the_mode(sce, splits):
    model = copy.deepcopy(sce)
    model.backbone.insert(0, torch.nn.Dropout(0.9))
    model.train()
    assert accuracy(model, splits.test) == accuracy(sce, splits.test)
    assert model.training
    assert model.backbone[0].training
    model.eval()
    accuracy(model, splits.test)
    assert not model.training


@pytest.mark.parametrize("split", ["test", "validation"])
def test_measures_the_first_n_images_of_its_split(sce, splits, split):
    outcome = outcome_of(sce, cell(Clean(), split, 70), splits)
    part = getattr(splits, split).first(70)
    with torch.no_grad():
        hits = sce(part.images).argmax(dim=1) == part.labels
    assert torch.equal(outcome.correct_before.bool(), hits)
    assert torch.equal(outcome.correct_after, outcome.correct_before)
    assert outcome.l2.count_nonzero() == 0
    assert outcome.queries.count_nonzero() == 0


@pytest.mark.parametrize("attack", [ATTACK, DeepFool(steps=5)], ids=lambda a: a.name)
def test_outcome_does_not_depend_on_the_batch_size(sce, splits, attack):
    whole = outcome_of(sce, cell(attack), splits)
    for batch in (1, 23, 59):
        some = outcome_of(sce, cell(attack), splits, batch=batch)
        for name in ("correct_before", "correct_after", "targets", "hit", "queries"):
            assert torch.equal(getattr(some, name), getattr(whole, name)), name
        assert torch.allclose(some.l2, whole.l2, atol=1e-4)


def test_larger_n_extends_a_smaller_one(sce, splits):
    small, large = (outcome_of(sce, cell(n=n), splits) for n in (30, 60))
    for name in ("correct_before", "correct_after", "targets", "hit"):
        assert torch.equal(getattr(large, name)[:30], getattr(small, name)), name


def test_seed_of_the_cell_keys_the_targets(sce, splits):
    one, same, other = (outcome_of(sce, cell(seed=seed), splits).targets for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_more_images_than_there_are_are_not_measured_silently(sce, splits):
    # The cell's id says 600: an outcome of 500 images must not stand under it.
    with pytest.raises(ValueError, match="500"):
        measure(sce, [cell(Clean(), n=600)], splits)


def test_outcome_is_stored_with_labels_and_without_pickle(sce, splits):
    outcome, (objects,) = outcome_of(sce, cell(), splits), measure(sce, [cell()], splits)
    assert set(objects) == {"outcome.safetensors", "outcome.json"}
    stored = safetensors.torch.load(objects["outcome.safetensors"])
    assert set(stored) == {*COLUMNS, "labels"}
    assert set(COLUMNS) == {
        *("correct_before", "correct_after", "l2", "linf", "queries", "gradient", "targets"),
        *("hit", "broken_by", "by_pass"),
    }
    for name in COLUMNS:
        assert torch.equal(stored[name], getattr(outcome, name))
    assert torch.equal(stored["labels"], splits.test.labels[:60])
    assert json.loads(objects["outcome.json"]) == {"passes": 1, "stages": ["pgd"]}


GROUP = [
    cell(PGD(budget="l2_abs", eps=1.2, steps=steps, alpha=0.2, random_start=True))
    for steps in (6, 2, 4)
]


def test_cells_of_one_run_are_byte_for_byte_those_measured_alone(sce, splits):
    assert len({one.group for one in GROUP}) == 1
    together = measure(sce, GROUP, splits, batch=23)
    alone = [measure(sce, [one], splits, batch=23) for one in GROUP]
    assert together == [objects for (objects,) in alone]
    assert len({objects["outcome.safetensors"] for objects in together}) == 3


@pytest.mark.parametrize(
    "other",
    [
        cell(GROUP[0].probe, split="validation"),
        cell(GROUP[0].probe, n=59),
        cell(GROUP[0].probe, seed=1),
        cell(PGD(budget="l2_abs", eps=1.1, steps=6, alpha=0.2, random_start=True)),
        cell(Clean()),
        cell(Embedding()),
    ],
    ids=str,
)
def test_cells_that_differ_in_more_than_the_steps_are_measured_apart(other):
    assert other.group != GROUP[0].group
    assert hash(other.group) is not None


def test_diagnostic_is_a_group_of_its_own(sce, splits):
    one = cell(Theory().filled(SCE(), ATTACK, stochastic=False), n=20)
    (objects,) = measure(sce, [one], splits)
    assert set(objects) == {"arrays.safetensors", "numbers.json"}


@dataclass(frozen=True)
class Borrowing(Attack):
    """Attacks another model than the one that is judged."""

    name, revision = "borrowing", 1  # never registered
    sources = ("other",)

    def columns(self):
        return None

    def perturb(self, classifier, batch):
        attack = PGD(budget="l2_abs", eps=1.2, steps=5)
        return attack.perturb(batch.models["other"], batch)


def test_other_models_reach_the_attack(sce, isce, splits):
    assert cell(Borrowing()).sources == ("other",)
    assert cell().sources == cell(Embedding()).sources == ()
    left = []
    for other in (sce, isce):
        (objects,) = measure(sce, [cell(Borrowing())], splits, {"other": other})
        stored = safetensors.torch.load(objects["outcome.safetensors"])
        left.append(int(stored["correct_after"].sum()))
    assert left[0] < left[1] < int(stored["correct_before"].sum())


def test_split_knows_its_length_and_front():
    split = Split(torch.rand(5, 1, 2, 2), torch.arange(5))
    assert len(split) == 5
    assert split.first(2).labels.tolist() == [0, 1]
    assert torch.equal(split.first(2).images, split.images[:2])
