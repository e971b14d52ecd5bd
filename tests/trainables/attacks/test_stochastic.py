"""Models that draw at random: scored over passes, with draws the adversary does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainables.attacks.base import PASSES
from trainables.attacks.clean import Clean
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.fgsm import FGSM
from trainables.attacks.gaussian import Gaussian
from trainables.attacks.pgd import PGD
from trainables.evaluation import accuracy
from trainables.evaluation import attacked as attacked_each
from trainables.execution import Execution
from trainables.seeding import Draws
from trainables.training import load_weights, new_classifier, weights_of

ATTACKS = [
    Clean(),
    PGD(budget="l2_abs", eps=1.0, steps=3, eot=3),
    PGD(budget="linf", eps=0.1, steps=3, targeted=True, random_start=True, eot=1),
    PGD(budget="linf", eps=0.1, steps=2, random_start=True, restarts=2, eot=2),
    FGSM(budget="l2_abs", eps=1.0, eot=3),
    Gaussian(budget="linf", eps=0.2, tries=3),
    DeepFool(steps=2, eot=2),
]


def attacked(model, attack, part, seed, batch=256):
    return attacked_each(model, [attack], part, seed, batch=batch)[0]


@pytest.fixture(scope="module")
def random(sce, model_config):
    """The trained SCE model behind a random transform."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_outcomes_count_passes(random, splits, attack):
    outcome = attacked(random, attack, splits.test.first(40), seed=0)
    assert outcome.passes == PASSES == 10
    assert outcome.correct_before.max() == PASSES
    assert 0 < outcome.correct_before.float().mean() < PASSES
    assert (outcome.correct_after <= outcome.correct_before).all()
    assert torch.equal(outcome.by_pass.sum(dim=1), outcome.correct_after)
    assert outcome.by_pass.shape == (40, PASSES)
    broken = (outcome.correct_before > 0) & (outcome.correct_after == 0)
    assert torch.equal(outcome.broken_by >= 0, broken)
    assert (outcome.l2[outcome.correct_before == 0] == 0).all()
    assert len(outcome.correct_before.unique()) > 2  # passes differ from each other


def test_the_clean_cell_leaves_every_pass_as_it_was(random, splits):
    outcome = attacked(random, Clean(), splits.test.first(40), seed=0)
    assert torch.equal(outcome.correct_after, outcome.correct_before)


def test_every_cell_begins_from_the_same_passes(random, splits):
    before = [attacked(random, a, splits.test.first(40), 0).correct_before for a in ATTACKS]
    assert all(torch.equal(one, before[0]) for one in before)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_outcome_does_not_depend_on_the_batch_size(random, splits, attack):
    part = splits.test.first(30)
    whole = attacked(random, attack, part, seed=0)
    some = attacked(random, attack, part, seed=0, batch=7)
    assert torch.equal(some.correct_before, whole.correct_before)
    assert (some.correct_after - whole.correct_after).abs().sum() <= 2  # float32 on a boundary


def test_the_adversary_sees_fresh_draws_at_every_step_and_never_the_judges(random, splits):
    keys = []
    real = random.transform.forward

    def forward(images, draws):
        keys.append((draws.key, torch.is_grad_enabled()))
        return real(images, draws)

    random.transform.forward = forward
    try:
        PGD(budget="l2_abs", eps=1.0, steps=3, eot=4)(random, *splits.test.batch(torch.arange(5)))
    finally:
        del random.transform.forward
    judged = [key for key, gradient in keys if not gradient]
    seen = [key for key, gradient in keys if gradient]
    assert len(seen) == len(set(seen)) == 3 * 4
    assert len(judged) == 2 * PASSES
    assert not set(seen) & set(judged)


@pytest.mark.parametrize("eot", [1, 5])
def test_pgd_does_not_stop_at_a_lucky_pass(random, splits, eot):
    # One flipped pass says nothing of the others: all steps are spent on every image.
    attack = PGD(budget="linf", eps=0.3, steps=4, eot=eot)
    outcome = attack(random, *splits.test.batch(torch.arange(20)))
    assert set(outcome.queries[outcome.correct_before > 0].tolist()) == {4 * eot}


def test_mean_over_draws_breaks_more_than_one_draw_does(random, splits):
    part = splits.test.first(80)
    attack = FGSM(budget="l2_abs", eps=1.5)
    assert attack.eot == 20  # METHODS 3
    one, many = (
        attacked(random, replace(attack, eot=eot), part, seed=0).correct_after.sum()
        for eot in (1, 10)
    )
    assert many < 0.95 * one  # 438 of 499 passes are left at 20


def test_one_run_of_several_step_counts_equals_separate_ones(random, splits):
    part = splits.test.first(20)
    peers = [
        PGD(budget="linf", eps=0.1, steps=steps, alpha=0.03, eot=2, random_start=True)
        for steps in (3, 1, 2)
    ]
    for peer, outcome in zip(peers, attacked_each(random, peers, part, 0), strict=True):
        alone = attacked(random, peer, part, 0)
        assert torch.equal(outcome.by_pass, alone.by_pass)
        assert torch.equal(outcome.l2, alone.l2)
        assert torch.equal(outcome.queries, alone.queries)


def test_restarts_stop_where_no_pass_is_right_and_keep_the_best_elsewhere(random, splits):
    part = splits.test.first(40)

    def run(restarts):
        attack = PGD(budget="linf", eps=0.12, steps=1, random_start=True, restarts=restarts, eot=2)
        return attacked(random, attack, part, seed=0)

    two, eight = run(2), run(8)
    alive = two.correct_before > 0
    each = 2 + PASSES
    assert set(two.queries[alive].tolist()) == {each, 2 * each}
    assert set(eight.queries[alive].tolist()) > {each, 8 * each}
    # The adversary's own passes are others than the judge's, and as many.
    assert eight.correct_after.sum() < two.correct_after.sum()


def test_deepfool_does_not_stop_at_a_lucky_pass_either(random, splits):
    part = splits.test.first(40)
    outcome = attacked(random, DeepFool(steps=15, eot=1), part, seed=0)
    alive = outcome.correct_before > 0
    assert set(outcome.queries[alive].tolist()) == {15}
    # Frozen at its first flipped draw it left half of the passes right.
    assert outcome.correct_after.sum() < 0.25 * outcome.correct_before.sum()


def test_a_deterministic_model_has_one_pass(sce, splits):
    assert not sce.stochastic
    assert attacked(sce, Clean(), splits.test.first(5), seed=0).passes == 1


def test_accuracy_is_over_keyed_draws(random, splits):
    draws = Draws((0, "accuracy"), torch.arange(500))
    with torch.no_grad():
        hits = random(splits.test.images, draws).argmax(dim=1) == splits.test.labels
    assert accuracy(random, splits.test) == pytest.approx(float(hits.float().mean()))
    assert accuracy(random, splits.test, batch=33) == accuracy(random, splits.test)
