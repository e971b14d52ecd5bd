"""SimBA against the published algorithm, one image and one query at a time."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple

import numpy as np
import pytest
import scipy.fft
import torch
from pydantic import ValidationError
from torch import Tensor

from trainables.attacks.base import NO_GRADIENT, PASSES
from trainables.attacks.budgets import size
from trainables.attacks.simba import SimBA, dct, log_odds
from trainables.execution import Execution
from trainables.training import load_weights, new_classifier, weights_of

BALL = {"budget": "l2_abs", "eps": 0.7}
WAYS = [{"eps": 0.2}, BALL, {"budget": "l2_rms", "eps": 0.02, "step": 0.4}]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_basis = pytest.mark.parametrize("basis", ["pixel", "dct"])
every_limit = pytest.mark.parametrize("limit", ["queries", "iterations"])


class State(NamedTuple):
    """Where one image stands after a query."""

    image: Tensor
    queries: int
    vectors: int  # it is through with
    sign: int  # that was just kept, 0 if none was


def simba(**parameters):
    return SimBA(**{"eps": 0.2, **parameters})


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def colourful(affine):
    """A model of images of three channels that are not square, and images off the box or on it.

    Class 0 is hard to leave.
    """
    bias = torch.tensor([4.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    classifier = affine(0.3 * random(5, 36), bias)
    images = (0.5 + 0.4 * random(16, 3, 3, 4, seed=1)).clamp(0, 1)
    with torch.no_grad():
        return classifier, images, classifier(images).argmax(dim=1)


def literal(classifier, image, label, order, *, basis, step, radius=None):
    """Algorithm 1 with the order of signs of the authors' `simba_single`, projected onto a ball."""

    def look(candidate):
        with torch.no_grad():
            logits = classifier(candidate.unsqueeze(0))[0].double()
        return float(logits.log_softmax(0)[label]), int(logits.argmax()) != label

    x, queries = image, 1
    last, flipped = look(x)
    yield State(x, queries, 0, 0)
    for number, k in enumerate(order):
        q = np.zeros(image.numel())
        q[k] = 1.0
        q = q.reshape(image.shape)
        if basis == "dct":
            q = scipy.fft.idctn(q, axes=(1, 2), norm="ortho")
        q = torch.from_numpy(q).to(image)
        for sign in (-1, 1):
            if flipped:
                return
            candidate = (x + sign * step * q).clamp(0, 1)
            length = float((candidate - image).norm())
            # Projecting what is on the sphere already rounds: an image that clipping left as it
            # was would move by 3e-17, and "lower" p_y half of the times.
            if radius is not None and length > radius * (1 + 1e-12):
                candidate = image + (candidate - image) * (radius / length)
            log_p, wrong = look(candidate)
            queries += 1
            if log_p < last:
                x, last, flipped = candidate, log_p, wrong
                yield State(x, queries, number + 1, sign)
                break
            yield State(x, queries, number + (sign == 1), 0)


def literal_paths(attack, classifier, batch):
    """The states of each image in the attack's unit of `steps`, the first before any step."""
    radius = attack.radius(batch.images)
    orders = batch.draws.at("order").uniform(batch.images[0].numel()).argsort(dim=1, stable=True)
    for i, (image, label) in enumerate(zip(batch.images, batch.labels, strict=True)):
        path = literal(
            classifier,
            image,
            int(label),
            orders[i].tolist(),
            basis=attack.basis,
            step=attack.eps if attack.budget is None else attack.step or 0.2,
            radius=None if radius is None else float(radius[i]),
        )
        if attack.limit == "queries":
            states = list(itertools.islice(path, attack.steps))
            yield [State(image, 0, 0, 0), *states]
        else:
            by_vectors = itertools.groupby(path, key=lambda state: state.vectors)
            firsts = [next(states) for _, states in itertools.islice(by_vectors, attack.steps + 1)]
            yield [firsts[0]._replace(queries=0), *firsts[1:]]


def differing(attack, classifier, batch):
    """How many images leave the literal path anywhere on the way, and the literal paths."""
    paths = list(literal_paths(attack, classifier, batch))
    same = torch.ones(len(paths), dtype=torch.bool)
    iterates = itertools.islice(attack.iterates(classifier, batch), attack.steps + 1)
    for number, ours in enumerate(iterates):
        states = [path[min(number, len(path) - 1)] for path in paths]
        images = torch.stack([state.image for state in states])
        same &= (ours.images - images).abs().flatten(1).amax(dim=1) < 1e-6
        same &= ours.queries == torch.tensor([state.queries for state in states])
    assert number == max(map(len, paths)) - 1  # ends early if and only if nothing is left to do
    return int((~same).sum()), paths


@pytest.fixture(scope="module")
def stochastic(sce, model_config):
    """The trained SCE model behind a random transform, in float64."""
    model = new_classifier(model_config(transform="random_resize_pad"), Execution())
    load_weights(model, weights_of(sce))
    return model.eval().double()


@pytest.mark.parametrize(
    ("model", "way", "basis"),
    [
        *itertools.product(["sce"], WAYS, ["pixel", "dct"]),
        ("isce", {}, "pixel"),
        ("isce", BALL, "dct"),
    ],
    ids=str,
)
def test_every_iterate_is_that_of_the_published_algorithm(
    request, right, batch_of, model, way, basis
):
    classifier = request.getfixturevalue(model)
    images, labels = (part[20:28] for part in right(classifier, 28))
    batch = batch_of(images.double(), labels)
    attack = simba(**way, basis=basis, steps=90)
    wrong, paths = differing(attack, copy.deepcopy(classifier).double(), batch)
    assert wrong == 0
    signs = [state.sign for path in paths for state in path]
    assert min(signs.count(-1), signs.count(1)) > 20


@every_limit
@every_basis
@every_way
def test_every_iterate_is_that_of_the_published_algorithm_up_to_the_end_of_the_basis(
    affine, batch_of, way, basis, limit
):
    classifier, images, labels = colourful(affine)
    attack = simba(**way, basis=basis, limit=limit, steps=1000)
    wrong, paths = differing(attack, classifier, batch_of(images, labels))
    assert wrong == 0
    ends = [path[-1] for path in paths]
    assert any(end.vectors == 36 for end in ends)  # went through the basis and ended
    assert len({end.queries for end in ends}) > 4


@every_basis
def test_float32_leaves_the_published_path_where_rounding_decides_alone(
    sce, right, batch_of, basis
):
    # Kernels round differently for one image and for many: 4 of 512 paths in 300 queries.
    images, labels = right(sce, 30)
    batch = batch_of(images, labels)
    wrong, _ = differing(simba(basis=basis, steps=60), sce, batch)
    assert wrong <= 1


@pytest.mark.parametrize("side", [1, 2, 5, 28, 32])
def test_dct_basis_is_that_of_scipy(side):
    other = side + 3
    ours = torch.einsum("ui,vj->uvij", dct(side), dct(other))
    units = np.eye(side * other).reshape(side, other, side, other)
    theirs = torch.from_numpy(scipy.fft.idctn(units, axes=(2, 3), norm="ortho"))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert torch.allclose(dct(side) @ dct(side).T, torch.eye(side).double(), rtol=0, atol=1e-12)


def test_log_odds_order_trials_as_log_p_does():
    logits, labels = 3 * random(200, 10), torch.arange(200) % 10
    log_p = logits.log_softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    odds = log_odds(logits, labels)
    assert torch.allclose(odds, log_p - torch.log1p(-log_p.exp()), rtol=0, atol=1e-12)
    assert torch.equal(odds.argsort(), log_p.argsort())


@pytest.mark.parametrize(("gap", "dtype"), [(25.0, torch.float32), (60.0, torch.float64)])
def test_saturated_image_is_attacked_at_full_strength(affine, batch_of, gap, dtype):
    weight = random(2, 36).float()
    images, labels = torch.full((1, 1, 6, 6), 0.5), torch.tensor([0])
    bias = torch.tensor([gap, 0.0]) - weight @ images.flatten()
    classifier = affine(weight, bias)
    # No trial is seen to lower log p_y in this precision: the clean one is 0 already.
    assert classifier(images).to(dtype).log_softmax(dim=1)[0, 0] == 0
    attack = simba(steps=36, limit="iterations")
    result = attack.perturb(classifier, batch_of(images, labels)).images
    downhill = 0.2 * (weight[1] - weight[0]).sign().view_as(images)
    assert torch.allclose(result, images + downhill)


@every_limit
@every_basis
@every_way
def test_limits_that_share_a_run_are_those_of_runs_of_their_own(
    sce, right, batch_of, way, basis, limit
):
    images, labels = right(sce, 40)
    batch = batch_of(images, labels)
    peers = [simba(**way, basis=basis, limit=limit, steps=steps) for steps in (1, 2, 7, 50)]
    assert len({peer.alike() for peer in peers}) == 1
    together = peers[0].perturb_each(peers, sce, batch)
    for peer, shared in zip(peers, together, strict=True):
        alone = peer.perturb(sce, batch)
        assert torch.equal(alone.images, shared.images)
        assert torch.equal(alone.queries, shared.queries)
        if limit == "queries":
            assert (shared.queries <= peer.steps).all()
        else:
            assert (shared.queries <= 1 + 2 * peer.steps).all()
    assert together[-1].queries.max() == 50 or limit == "iterations"


def test_attacks_that_differ_in_more_than_steps_do_not_share_a_run():
    ways = [*WAYS, {"basis": "dct"}, {"limit": "iterations"}, {"eps": 0.3}]
    assert len({simba(**way).alike() for way in ways}) == len(ways)


@every_limit
@pytest.mark.parametrize("model", ["sce", "stochastic"])
def test_outcome_does_not_depend_on_the_batch(request, splits, model, limit):
    # In float64: in float32 kernels round differently for few images and for many.
    classifier = copy.deepcopy(request.getfixturevalue(model)).double()
    images, labels = splits.test.images[:30].double(), splits.test.labels[:30]
    attack = simba(basis="dct", limit=limit, steps=40)
    whole, outcome = attack.craft(classifier, images, labels, seed=3)
    for index in (*torch.arange(30).split(7), torch.tensor([29, 4])):
        some, part = attack.craft(classifier, images[index], labels[index], indices=index, seed=3)
        assert torch.allclose(some, whole[index], rtol=0, atol=1e-12)
        assert torch.equal(part.queries, outcome.queries[index])
        assert torch.equal(part.correct_after, outcome.correct_after[index])


def test_order_of_the_basis_is_the_images_own(affine, batch_of):
    classifier = affine(torch.tensor([[0.0] * 36, [1.0] * 36]), torch.tensor([99.0, 0.0]))
    images, labels = torch.full((30, 1, 6, 6), 0.5), torch.zeros(30, dtype=torch.long)
    attack = simba(steps=1, limit="iterations")

    def first(seed):
        result = attack.perturb(classifier, batch_of(images, labels, seed=seed)).images
        assert ((result - images).abs() > 0.1).flatten(1).sum(dim=1).tolist() == [1] * 30
        return (result - images).flatten(1).argmax(dim=1)

    assert len(first(0).unique()) > 12
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


@every_basis
@pytest.mark.parametrize("budget", ["l2_abs", "l2_rms", "l2_rel"])
def test_ball_and_box_are_held_and_the_ball_binds(sce, splits, budget, basis):
    part = splits.test.first(40)
    eps = {"l2_abs": 0.5, "l2_rms": 0.02, "l2_rel": 0.05}[budget]
    attack = simba(budget=budget, eps=eps, basis=basis, steps=120)
    images, outcome = attack.craft(sce, part.images, part.labels)
    length = part.images.flatten(1).norm(dim=1)
    radius = {"l2_abs": 0.5, "l2_rms": 0.02 * 28, "l2_rel": 0.05 * length}[budget]
    assert (outcome.l2 <= radius * (1 + 1e-5)).all()
    assert (outcome.l2 > 0.999 * radius).sum() > 20
    assert images.min() >= 0
    assert images.max() <= 1


def test_without_a_ball_the_perturbation_is_bounded_by_the_trials_kept(affine, batch_of):
    classifier, images, labels = colourful(affine)
    batch = batch_of(images, labels)
    attack = simba()
    result = attack.perturb(classifier, batch).images
    kept = [
        sum(state.sign != 0 for state in path) for path in literal_paths(attack, classifier, batch)
    ]
    bound = 0.2 * torch.tensor(kept).double().sqrt()
    assert (size(result - images, "l2").flatten() <= bound * (1 + 1e-12)).all()
    assert attack.radius(images) is None


def test_trial_that_leaves_p_as_it_is_is_not_kept(affine, batch_of):
    classifier = affine(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0]))
    images = torch.full((4, 1, 1, 2), 0.4)  # the model does not look at the first pixel
    attack = simba(steps=5, limit="iterations")
    result = attack.perturb(classifier, batch_of(images, torch.zeros(4, dtype=torch.long)))
    assert torch.allclose(result.images, torch.tensor([0.4, 0.6]).expand(4, 1, 1, 2))
    assert result.queries.tolist() == [5] * 4


@pytest.mark.parametrize("way", [{"eps": 0.0}, {"budget": "l2_abs", "eps": 0.0}], ids=str)
def test_eps_0_leaves_the_images_as_they_are(sce, splits, way):
    part = splits.test.first(20)
    outcome = simba(**way, steps=30)(sce, part.images, part.labels)
    assert outcome.linf.count_nonzero() == 0
    assert torch.equal(outcome.correct_after, outcome.correct_before)
    assert set(outcome.queries[outcome.correct_before > 0].tolist()) == {30}


def test_image_is_done_when_a_kept_trial_is_misclassified(sce, right, batch_of):
    images, labels = right(sce, 60)
    batch = batch_of(images, labels)
    attack = simba(eps=1.0, steps=150)
    after = {n: s.clone() for n, s in enumerate(attack.iterates(sce, batch)) if n in (100, 150)}
    with torch.no_grad():
        broken = sce(after[100].images).argmax(dim=1) != labels
    assert 5 < broken.sum() < 55
    assert (after[100].queries[~broken] == 100).all()
    assert (after[150].queries[~broken] > 100).all()
    assert torch.equal(after[100].images[broken], after[150].images[broken])
    assert torch.equal(after[100].queries[broken], after[150].queries[broken])
    assert not torch.equal(after[100].images[~broken], after[150].images[~broken])


def test_image_that_is_misclassified_as_it_is_costs_one_query(affine, batch_of):
    classifier = affine(torch.tensor([[0.0] * 4, [1.0] * 4]), torch.tensor([1.0, 0.0]))
    images = torch.full((1, 1, 2, 2), 0.5)
    result = simba().perturb(classifier, batch_of(images, torch.tensor([0])))
    assert torch.equal(result.images, images)
    assert result.queries.tolist() == [1]


def test_misclassified_trial_that_does_not_lower_p_is_not_kept(affine, batch_of):
    # Backwards class 1 wins while class 2 vanishes: p_0 rises. Forwards p_0 falls, class 2 wins.
    classifier = affine(
        torch.tensor([[0.0], [-0.55], [24.95]]), torch.tensor([0.0, 0.265, -12.485])
    )
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    p = [classifier(torch.full((1, 1, 1, 1), x)).softmax(dim=1)[0] for x in (0.3, 0.5, 0.7)]
    assert [int(each.argmax()) for each in p] == [1, 0, 2]
    assert p[0][0] > p[1][0] > p[2][0]
    result = simba().perturb(classifier, batch_of(image, label))
    assert float(result.images) == pytest.approx(0.7)
    assert result.queries.tolist() == [3]


def test_model_sees_the_images_that_are_not_done_alone_and_no_trial_that_clipping_undoes(
    affine, batch_of
):
    weight = torch.tensor([[0.0] * 4, [1.0] * 4])
    classifier = affine(weight, torch.tensor([1.0, 0.0]))
    images = torch.tensor([0.0, 0.2]).view(2, 1, 1, 1).expand(2, 1, 2, 2)  # 1.01 breaks
    seen = []
    hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        result = simba(eps=0.15).perturb(classifier, batch_of(images, torch.tensor([0, 0])))
    finally:
        hook.remove()
    # All backwards: undone on black, not kept on grey. Forwards: kept, and over after 2 of grey.
    assert seen == [2, 1, 2, 1, 2, 1, 1]
    assert result.queries.tolist() == [9, 5]
    assert result.images.flatten(1).sum(dim=1).tolist() == pytest.approx([0.6, 1.1])


def test_nothing_stops_early_on_a_model_that_draws_at_random(stochastic, splits):
    images, labels = splits.test.images[:12].double(), splits.test.labels[:12]
    keys = []
    real = stochastic.transform.forward

    def forward(images, draws):
        keys.append(draws.key)
        return real(images, draws)

    stochastic.transform.forward = forward
    try:
        outcome = simba(eps=0.5, basis="dct", steps=40)(stochastic, images, labels)
    finally:
        del stochastic.transform.forward
    assert set(outcome.queries[outcome.correct_before > 0].tolist()) == {40}
    assert len(keys) == len(set(keys)) + PASSES == 40 + 2 * PASSES  # the judge's come twice
    assert outcome.passes == PASSES


def test_nothing_is_aimed_at(sce, splits):
    part = splits.test.first(20)
    outcome = simba(steps=20)(sce, part.images, part.labels)
    assert (outcome.targets == -1).all()
    assert (outcome.gradient == NO_GRADIENT).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"steps": 0}, "steps"),
        ({"budget": "linf"}, "expected a ball in L2 such as l2_abs, found linf"),
        ({"budget": "path_l2"}, "found the path path_l2"),
        ({"budget": "l2_abs", "step": 0.0}, "step"),
        ({"step": 0.2}, "without one eps is the step"),
        ({"basis": "fourier"}, "basis"),
        ({"limit": "steps"}, "limit"),
        ({"surface": "ce_raw"}, "surface"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        simba(**wrong)


def test_columns_list_the_ball_or_the_step():
    columns = simba().columns()
    assert (columns.budget, columns.norm, columns.surface) == ("step", None, "none")
    assert (columns.eps, columns.steps, columns.targeted, columns.extra) == (0.2, 300, False, {})
    columns = simba(budget="l2_abs", eps=1.5, step=0.1, basis="dct", limit="iterations").columns()
    assert (columns.budget, columns.norm, columns.eps) == ("l2_abs", "l2", 1.5)
    assert columns.extra == {"step": 0.1, "basis": "dct", "limit": "iterations"}
