"""What the base owns: modes, gradients, range, budget, judgement, survivors, peers, turns."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch

from trainables.attacks.base import (
    NO_GRADIENT,
    PASSES,
    UNBROKEN,
    Attack,
    Batch,
    Crafted,
    Stepwise,
    craft,
    in_turn,
)
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.errors import BrokenInvariant
from trainables.seeding import Draws


class Scripted(Attack):
    """Does to its batch what a test says, and remembers what it was given."""

    name, revision = "scripted", 1  # never registered

    stages = ("first", "second")

    def __init__(self, change=lambda images: images, norm=None, radius=None, **crafted):
        self.change, self._norm, self._radius = change, norm, radius
        self.crafted, self.batches = crafted, []

    @property
    def norm(self):
        return self._norm

    def radius(self, images):
        if self._radius is None:
            return None
        return images.new_full((len(images), 1, 1, 1), self._radius)

    def columns(self):
        return None

    def perturb(self, classifier, batch):
        self.batches.append(batch)
        self.modes = [module.training for module in classifier.modules()]
        self.wanted = [parameter.requires_grad for parameter in classifier.parameters()]
        queries = torch.full_like(batch.labels, 7)
        return Crafted(images=self.change(batch.images), queries=queries, **self.crafted)


ATTACKS = [
    PGD(budget="l2_abs", eps=1.0, steps=2, targeted=True, random_start=True),
    DeepFool(steps=2),
]


@pytest.fixture
def model(sce):
    return copy.deepcopy(sce)


@pytest.fixture(scope="module")
def mixed(sce, splits):
    """Twelve images whose labels are right, except the 2nd, the 5th and the last."""
    images = splits.test.images[:12]
    with torch.no_grad():
        labels = sce(images).argmax(dim=1)
    wrong = torch.tensor([1, 4, 11])
    labels[wrong] = (labels[wrong] + 1) % 10
    return images, labels


def push(eps):
    """Every pixel towards the middle of its range, by eps."""
    return lambda images: images + eps * torch.where(images < 0.5, 1.0, -1.0)


@pytest.mark.parametrize("attack", [*ATTACKS, Scripted()], ids=lambda a: a.name)
def test_modes_flags_and_gradients_are_left_as_they_were(model, mixed, attack):
    model.train()
    model.backbone[3].eval()
    first, *others = model.parameters()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    modes = [module.training for module in model.modules()]
    attack(model, *mixed)
    assert [module.training for module in model.modules()] == modes
    assert not first.requires_grad
    assert all(parameter.requires_grad for parameter in others)
    assert torch.equal(others[0].grad, torch.ones_like(others[0]))
    assert first.grad is None
    assert all(parameter.grad is None for parameter in others[1:])


def test_modes_and_flags_are_restored_after_an_error(model, mixed):
    def fail(images):
        raise RuntimeError("out of luck")

    model.train()
    with pytest.raises(RuntimeError, match="out of luck"):
        Scripted(fail)(model, *mixed)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attack_sees_eval_mode_and_frozen_parameters(model, mixed):
    model.train()
    attack = Scripted()
    attack(model, *mixed)
    assert not any(attack.modes)
    assert not any(attack.wanted)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_weights_are_left_as_they_were(model, mixed, attack):
    before = copy.deepcopy(model.state_dict())
    attack(model, *mixed)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_random_state_of_torch_is_untouched(model, mixed, attack):
    before = torch.get_rng_state()
    attack(model, *mixed)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_survivors_are_attacked(model, mixed):
    images, labels = mixed
    attack = Scripted(push(0.1))
    outcome = attack(model, images, labels, indices=torch.arange(100, 112), seed=5)
    alive = torch.tensor([0, 2, 3, 5, 6, 7, 8, 9, 10])
    (batch,) = attack.batches
    assert torch.equal(batch.images, images[alive])
    assert torch.equal(batch.labels, labels[alive])
    assert torch.equal(batch.draws.indices, 100 + alive)
    assert batch.draws.key[0] == 5
    assert batch.targets is None
    assert outcome.correct_before.nonzero().flatten().tolist() == alive.tolist()
    assert (outcome.linf > 0).nonzero().flatten().tolist() == alive.tolist()
    assert (outcome.queries == 7).nonzero().flatten().tolist() == alive.tolist()
    assert outcome.correct_after[[1, 4, 11]].tolist() == [0, 0, 0]


def test_attack_is_not_called_without_survivors(model, mixed):
    images, labels = mixed
    attack = Scripted()
    outcome = attack(model, images[[1, 4]], labels[[1, 4]])
    assert attack.batches == []
    assert outcome.correct_after.tolist() == [0, 0]


def test_images_given_are_not_changed(model, mixed):
    images, labels = mixed
    before = images.clone()
    Scripted(lambda batch: batch.mul_(0.0))(model, images, labels)
    assert torch.equal(images, before)


def test_success_is_judged_by_the_model_on_the_clipped_result(model, mixed):
    images, labels = mixed
    black = Scripted(lambda batch: torch.full_like(batch, -9.0))
    outcome = black(model, images, labels)
    with torch.no_grad():
        seen = model(torch.zeros_like(images[:1])).argmax()
    expected = outcome.correct_before.bool() & (labels == seen)
    assert torch.equal(outcome.correct_after.bool(), expected)
    alive = outcome.correct_before.bool()
    length = images.flatten(1).norm(dim=1)
    assert torch.allclose(outcome.l2[alive], length[alive], rtol=1e-5)
    assert torch.allclose(outcome.linf[alive], images.flatten(1).amax(dim=1)[alive])


def test_attack_that_does_nothing_leaves_the_clean_accuracy(model, mixed):
    outcome = Scripted()(model, *mixed)
    assert torch.equal(outcome.correct_after, outcome.correct_before)


class Fickle(torch.nn.Module):
    """Says class 0 when first asked and class 1 ever after."""

    asked = 0
    stochastic = False

    def forward(self, images, draws):
        self.asked += 1
        return torch.eye(2)[[min(self.asked - 1, 1)]].expand(len(images), 2)


def test_clean_mistake_counts_as_broken_whatever_is_said_later():
    outcome = Scripted()(Fickle(), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert outcome.correct_before.tolist() == [1, 0]
    assert outcome.correct_after.tolist() == [0, 0]
    assert outcome.by_pass.tolist() == [[0], [0]]
    assert outcome.broken_by.tolist() == [0, UNBROKEN]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbation_within_its_budget_passes(model, mixed, norm):
    radius = 0.1 if norm == "linf" else 0.1 * 28 * (1 + 1e-6)
    Scripted(push(0.1), norm, radius)(model, *mixed)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_perturbation_outside_its_budget_is_a_bug(model, mixed, norm):
    radius = 0.1 if norm == "linf" else 0.1 * 28
    cheat = Scripted(push(0.1 * (1 + 1e-4)), norm, radius)
    with pytest.raises(BrokenInvariant, match="budget"):
        cheat(model, *mixed)


def test_one_cheated_image_is_enough(model, mixed):
    def change(images):
        images = images.clone()
        images[3, 0, 0, 0] = 0.5
        return images

    with pytest.raises(BrokenInvariant, match="budget"):
        Scripted(change, "linf", 0.1)(model, *mixed)


def test_budget_is_judged_after_clipping(model, mixed):
    images, labels = mixed
    Scripted(lambda batch: batch - 9.0 * (batch == 0), "linf", 0.01)(model, images, labels)


@pytest.mark.parametrize("budget", [("l2", 1.0), ("linf", 0.1), (None, None)], ids=str)
def test_result_that_is_not_a_number_is_a_bug(model, mixed, budget):
    # Otherwise argmax takes NaN for class 0 and nine tenths of the images count as broken.
    with pytest.raises(BrokenInvariant):
        Scripted(lambda batch: batch * float("nan"), *budget)(model, *mixed)


@pytest.mark.parametrize("value", [-1e-3, 1.001, 255.0, float("inf"), float("nan")])
def test_images_outside_the_range_are_refused(model, mixed, value):
    images, labels = mixed[0].clone(), mixed[1]
    images[2, 0, 5, 5] = value
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Scripted()(model, images, labels)


def test_no_images_give_an_empty_outcome(model, mixed):
    outcome = PGD(eps=0.1, steps=2, targeted=True)(model, mixed[0][:0], mixed[1][:0])
    assert all(len(getattr(outcome, name)) == 0 for name in ("correct_before", "l2", "targets"))


@pytest.mark.parametrize("method", [Attack.__call__, Attack.craft])
def test_judgement_cannot_be_overridden_unnoticed(method):
    assert getattr(method, "__final__", False)


def blacken_five(images):
    """The first five of them go black."""
    return images * (torch.arange(len(images)) > 4).view(-1, 1, 1, 1)


def test_without_a_gradient_or_stages_the_outcome_says_so(model, mixed):
    outcome = Scripted(blacken_five)(model, *mixed)
    broken = (outcome.correct_before > 0) & (outcome.correct_after == 0)
    assert 0 < broken.sum() < outcome.correct_before.sum()
    assert outcome.gradient.dtype == torch.float64
    assert (outcome.gradient == NO_GRADIENT).all()
    assert torch.equal(outcome.broken_by, torch.where(broken, 0, UNBROKEN))
    assert outcome.stages == ("first", "second")
    assert torch.equal(outcome.by_pass, outcome.correct_after.to(torch.uint8).unsqueeze(1))


def test_gradient_and_stage_stand_beside_the_images_that_were_attacked(model, mixed):
    gradient, stage = torch.arange(9).double(), torch.arange(9) % 2
    outcome = Scripted(blacken_five, gradient=gradient, stage=stage)(model, *mixed)
    alive = outcome.correct_before > 0
    assert outcome.gradient[alive].tolist() == gradient.tolist()
    assert (outcome.gradient[~alive] == NO_GRADIENT).all()
    broken = alive & (outcome.correct_after == 0)
    assert set(stage[broken[alive]].tolist()) == {0, 1}
    assert torch.equal(outcome.broken_by[broken], stage[broken[alive]])
    assert (outcome.broken_by[~broken] == UNBROKEN).all()  # clean mistakes were not broken by it


def test_batch_gives_some_images_with_all_that_is_theirs(sce):
    batch = Batch(
        images=torch.rand(4, 1, 2, 2),
        labels=torch.tensor([3, 1, 2, 0]),
        targets=torch.tensor([5, 6, 7, 8]),
        logits=torch.rand(4, 10),
        draws=Draws((3,), torch.tensor([10, 20, 30, 40])),
        models={"other": sce},
    )
    chosen = torch.tensor([2, 0])
    some = batch[chosen]
    for name in ("images", "labels", "targets", "logits"):
        assert torch.equal(getattr(some, name), getattr(batch, name)[chosen]), name
    assert (some.draws.key, some.draws.indices.tolist()) == ((3,), [30, 10])
    assert some.models is batch.models
    assert replace(batch, targets=None)[chosen].targets is None


def test_rivals_are_the_wrong_classes_likeliest_first(batch_of):
    logits = torch.tensor([[3.0, 9.0, 5.0, 5.0], [0.0, 1.0, 2.0, 3.0]])
    batch = replace(batch_of(torch.rand(2, 1, 2, 2), torch.tensor([1, 0])), logits=logits)
    assert batch.rivals().tolist() == [[2, 3, 0], [3, 2, 1]]


def test_attack_sees_the_clean_logits_and_the_other_models(model, sce, mixed):
    attack, other = Scripted(), copy.deepcopy(sce).train()
    attack(model, *mixed, models={"other": other})
    (batch,) = attack.batches
    with torch.no_grad():
        logits = sce(mixed[0])
    assert torch.equal(batch.logits, logits[batch.draws.indices])
    assert batch.models == {"other": other}


def test_other_models_are_frozen_and_left_as_they_were(model, sce, mixed):
    other, seen = copy.deepcopy(sce).train(), []

    def look(images):
        seen.extend(module.training for module in other.modules())
        seen.extend(parameter.requires_grad for parameter in other.parameters())
        return images

    Scripted(look)(model, *mixed, models={"other": other})
    assert not any(seen)
    assert all(module.training for module in other.modules())
    assert all(parameter.requires_grad for parameter in other.parameters())


@dataclass(frozen=True, kw_only=True)
class Darker(Stepwise):
    """Every step takes a tenth of a pixel off; ends early once all images are black."""

    name, revision = "darker", 1  # never registered
    steps: int
    looks = []  # noqa: RUF012 (what the test reads)

    def columns(self):
        return None

    def iterates(self, classifier, batch):
        result, queries = batch.images.clone(), torch.zeros_like(batch.labels)
        while True:
            yield Crafted(images=result, queries=queries)
            if not result.any():
                return
            queries += 1
            self.looks.append(len(result))
            result.sub_(0.1).clamp_(min=0)


def test_one_run_answers_every_number_of_steps(model, mixed):
    peers = [Darker(steps=steps) for steps in (3, 1, 50, 3, 40)]
    assert len({peer.alike() for peer in peers}) == 1
    Darker.looks.clear()
    together = craft(peers, model, *mixed)
    most = len(Darker.looks)  # until all is black, far from 50
    assert 10 <= most <= 11
    for peer, (images, outcome) in zip(peers, together, strict=True):
        alone, own = peer.craft(model, *mixed)
        assert torch.equal(images, alone)
        assert own.queries.max() == min(peer.steps, most)
        assert_same(outcome, own)


def assert_same(one, other):
    for name, value in vars(one).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, name)), name


def test_attacks_of_which_one_run_answers_one_are_run_one_by_one(model, mixed):
    peers = [Scripted(push(0.1)), Scripted(push(0.2))]
    (_, one), (_, other) = craft(peers, model, *mixed)
    assert [len(peer.batches) for peer in peers] == [1, 1]
    alive = one.correct_before > 0
    assert torch.allclose(2 * one.linf[alive], other.linf[alive])


def test_every_peers_budget_is_checked(model, mixed):
    fair, cheat = (Scripted(push(0.1), "linf", radius) for radius in (0.1, 0.05))
    with pytest.raises(BrokenInvariant, match="budget"):
        craft([fair, cheat], model, *mixed)


class Chancy(torch.nn.Module):
    """Says class 1 with the probability that an image's pixels are from white, else class 0."""

    stochastic = True

    def forward(self, images, draws):
        right = draws.uniform(1).squeeze(1) >= images.flatten(1)[:, 0]
        return torch.stack([~right, right], dim=1).float()


class Threshold(torch.nn.Module):
    """Says class 1 below a pixel of one half, else class 0."""

    stochastic = False

    def forward(self, images, draws):
        right = images.flatten(1)[:, 0] < 0.5
        return torch.stack([~right, right], dim=1).float()


class Attempts:
    """Attempts that put each image at a value of its own, and remember whom they were given."""

    def __init__(self, *values):
        self.values, self.given, self.keys = values, [], []

    def __iter__(self):
        return map(self._attempt, range(len(self.values)))

    def _attempt(self, number):
        def attempt(part):
            self.given.append(part.draws.indices.tolist())
            self.keys.append(part.draws.key)
            value = torch.tensor(self.values[number])[part.draws.indices]
            return Crafted(
                images=value.view(-1, 1, 1, 1).expand_as(part.images),
                queries=torch.full_like(part.labels, 3),
                gradient=1.0 / (1 + number + part.draws.indices.double()),
                stage=torch.full_like(part.labels, 5),
            )

        return attempt


def dark(batch_of, n):
    return batch_of(torch.full((n, 1, 1, 1), 0.1), torch.ones(n, dtype=torch.long))


def test_attempts_are_made_in_turn_on_what_is_unbroken(batch_of):
    attempts = Attempts([0.2, 0.9, 0.2], [0.3, 0.9, 0.7], [0.4, 0.9, 0.8])
    made = in_turn(Threshold(), dark(batch_of, 3), attempts)
    assert attempts.given == [[0, 1, 2], [0, 2], [0]]
    assert len(set(attempts.keys)) == 3
    assert made.images.flatten().tolist() == pytest.approx([0.2, 0.9, 0.7])
    assert made.stage.tolist() == [0, 0, 1]
    assert made.queries.tolist() == [12, 4, 8]  # three of its own and the judge's, an attempt
    assert made.gradient.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 4])


def test_no_attempt_is_made_once_all_is_broken(batch_of):
    attempts = Attempts([0.9, 0.9], [0.9, 0.9])
    in_turn(Threshold(), dark(batch_of, 2), attempts)
    assert len(attempts.given) == 1


def test_attempts_without_a_gradient_do_not_hide_the_others(batch_of):
    def attempt(gradient):
        def make(part):
            found = None if gradient is None else torch.full((2,), gradient, dtype=torch.float64)
            return Crafted(images=part.images, queries=part.labels, gradient=found)

        return make

    def smallest(*gradients):
        made = in_turn(Threshold(), dark(batch_of, 2), map(attempt, gradients))
        return made.gradient.tolist()

    assert smallest(None, 0.5, NO_GRADIENT, 0.25, None, 0.75) == [0.25, 0.25]
    assert smallest(0.5, NO_GRADIENT) == [0.5, 0.5]
    assert smallest(0.5, 0.0, 0.3) == [0.0, 0.0]
    assert smallest(None, NO_GRADIENT) == [NO_GRADIENT, NO_GRADIENT]


def test_of_a_random_model_the_attempt_that_leaves_fewest_passes_counts(batch_of):
    attempts = Attempts([0.3, 0.3, 1.0], [0.99, 0.3, 0.2], [0.6, 1.0, 0.2], [0.7, 0.2, 0.2])
    made = in_turn(Chancy(), dark(batch_of, 3), attempts)
    assert made.images.flatten().tolist() == pytest.approx([0.99, 1.0, 1.0])
    assert made.stage.tolist() == [1, 2, 0]
    assert attempts.given[:2] == [[0, 1, 2], [0, 1]]  # the third was broken on every pass
    assert made.queries[2] == 3 + PASSES


def test_the_adversary_judges_with_draws_that_are_not_the_judges(batch_of):
    keys = []

    class Listening(Chancy):
        def forward(self, images, draws):
            keys.append(draws.key)
            return super().forward(images, draws)

    in_turn(Listening(), dark(batch_of, 1), Attempts([0.3], [0.3]))
    assert len(keys) == len(set(keys)) == 2 * PASSES
    assert not set(keys) & {(0, "judge", number) for number in range(PASSES)}
