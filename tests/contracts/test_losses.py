"""What every registered loss must keep to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainables import registry
from trainables.losses.base import Head
from trainables.seeding import initialise

WIDTH, CLASSES = 12, 4
LOSSES = list(registry.every("loss"))
pytestmark = pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.name)
both_objectives = pytest.mark.parametrize("objective", ["loss", "inner"])


def head_of(cls, seed: int = 0) -> Head:
    head = cls().head(WIDTH, CLASSES).double()
    initialise(head, seed)
    return head


def features(rows: int = 6, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, dtype=torch.float64, generator=generator) * scale


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def learnt(head: Head) -> Head:
    """The head after some steps, with whatever state it moves beside its parameters."""
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for step in range(20):
        h = features(seed=step % 4)
        optimizer.zero_grad()
        head.loss(h, LABELS).mean().backward()
        optimizer.step()
        head.update(h, LABELS)
    return head


def confident(head: Head) -> torch.Tensor:
    """Features that the head classifies right, with a small training loss."""
    h = features().to(next(head.parameters()).dtype).requires_grad_()
    optimizer = torch.optim.Adam([h], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(h, LABELS).sum().backward()
        optimizer.step()
    return h.detach()


def copies(tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@both_objectives
def test_gives_one_value_a_sample_that_is_its_own(cls, objective):
    evaluate, h = getattr(learnt(head_of(cls)), objective), features()
    values = evaluate(h, LABELS)
    assert values.shape == (6,)
    alone = torch.cat([evaluate(h[i : i + 1], LABELS[i : i + 1]) for i in range(6)])
    assert torch.allclose(values, alone, rtol=0, atol=1e-10)


@both_objectives
def test_gradient_is_that_of_finite_differences(cls, objective):
    head, h = learnt(head_of(cls)), features().requires_grad_()
    evaluate, parameters = getattr(head, objective), tuple(head.parameters())
    assert torch.autograd.gradcheck(lambda h, *_: evaluate(h, LABELS), (h, *parameters))


@both_objectives
@pytest.mark.parametrize("kept", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
def test_value_and_gradient_are_finite_in_float32(cls, objective, kept, scale):
    head = head_of(cls).float()
    h = features(scale=scale).to(kept).float().requires_grad_()
    values = getattr(head, objective)(h, LABELS)
    gradients = torch.autograd.grad(values.sum(), (h, *head.parameters()))
    assert values.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@both_objectives
def test_logits_beyond_1e4_give_a_finite_value_and_gradient(cls, objective):
    head = head_of(cls).float()
    h = features(scale=1e5).float().requires_grad_()
    largest, larger = (head(x).detach().abs().max().item() for x in (h, 10 * h))
    assert largest > 1e4 or larger == pytest.approx(largest)  # some logits know no length
    values = getattr(head, objective)(h, LABELS)
    (gradient,) = torch.autograd.grad(values.sum(), h)
    assert values.isfinite().all()
    assert gradient.isfinite().all()


def test_learns(cls):
    head, h = head_of(cls), features()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    first = head.loss(h, LABELS).mean().item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = head.loss(h, LABELS).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < first


def test_inner_objective_sees_confident_images(cls):
    head = head_of(cls).float()
    h = confident(head)
    assert torch.equal(head.deployed(head(h)).argmax(dim=1), LABELS)
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(head.inner(h, LABELS).sum(), h)
    assert (gradient.norm(dim=1) > 0).all()


def test_inner_objective_rises_towards_a_mistake(cls):
    head = head_of(cls)
    h = confident(head)
    wrong = h.roll(1, dims=0)  # the next row is of another class
    assert (head.inner(wrong, LABELS) > head.inner(h, LABELS)).all()


def test_update_moves_saved_state_and_no_parameter(cls):
    head = learnt(head_of(cls))
    parameters = copies(head.named_parameters())
    saved = set(head.state_dict())
    constant = copies(item for item in head.named_buffers() if item[0] not in saved)
    h = features(seed=9)
    head.update(h, LABELS)
    assert same(copies(head.named_parameters()), parameters)
    assert same({name: head.get_buffer(name) for name in constant}, constant)
    assert torch.equal(h, features(seed=9))
    assert not any(buffer.requires_grad for buffer in head.buffers())


def test_state_is_saved_whole(cls):
    head, again = learnt(head_of(cls)), head_of(cls, seed=1)
    assert not torch.equal(again.loss(features(), LABELS), head.loss(features(), LABELS))
    again.load_state_dict(head.state_dict())
    for one in (head, again):
        one.update(features(seed=9), LABELS)
    assert torch.equal(again(features()), head(features()))
    assert torch.equal(again.loss(features(), LABELS), head.loss(features(), LABELS))
    assert torch.equal(again.inner(features(), LABELS), head.inner(features(), LABELS))


def test_rates_are_those_of_parameters(cls):
    head = head_of(cls)
    assert set(head.rates) <= {name for name, _ in head.named_parameters()}
    assert all(rate > 0 for rate in head.rates.values())


def test_raw_and_deployed_logits_choose_the_same_class(cls):
    head = head_of(cls)
    raw = head(features())
    assert raw.shape == (6, CLASSES)
    assert torch.equal(head.deployed(raw).argmax(dim=1), raw.argmax(dim=1))


def test_deploys_raw_says_whether_raw_and_deployed_are_one(cls):
    head = head_of(cls)
    raw = head(features())
    assert torch.allclose(head.deployed(raw), raw) == cls().deploys_raw


def test_infers_deployed_says_whether_probabilities_are_of_the_deployed_logits(cls):
    head = head_of(cls)
    raw = head(features())
    same = torch.allclose(head.probabilities(raw), head.deployed(raw).softmax(dim=1))
    assert same == cls().infers_deployed


def test_trains_deployed_says_whether_it_is_cross_entropy_of_the_deployed_logits(cls):
    head = learnt(head_of(cls))
    plain = F.cross_entropy(head.deployed(head(features())), LABELS, reduction="none")
    assert torch.allclose(head.loss(features(), LABELS), plain) == cls().trains_deployed


def test_probabilities_are_the_softmax_of_what_is_inferred(cls):
    assert getattr(Head.probabilities, "__final__", False)
    head = head_of(cls)
    assert type(head).probabilities is Head.probabilities
    raw = head(features())
    found = head.inferred(raw).softmax(dim=1)
    assert torch.equal(head.probabilities(raw), found)


def test_probabilities_sum_to_one(cls):
    head = head_of(cls)
    p = head.probabilities(head(features()))
    assert torch.allclose(p.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert (p >= 0).all()


def test_state_depends_on_the_seed_alone(cls):
    torch.manual_seed(1)
    one = head_of(cls, seed=3).state_dict()
    torch.manual_seed(2)
    same = head_of(cls, seed=3).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_seed_draws_every_parameter_and_no_buffer(cls):
    one, other = head_of(cls, seed=3), head_of(cls, seed=4)
    for name, parameter in one.named_parameters():
        assert not torch.equal(parameter, other.get_parameter(name))
    assert same(copies(one.named_buffers()), copies(other.named_buffers()))


def test_classifying_layers_start_from_one_weight(cls):
    weight = dict(head_of(cls).named_parameters()).get("linear.weight")
    if weight is not None and weight.shape == (CLASSES, WIDTH):
        assert torch.equal(weight, head_of(registry.find("loss", "sce")).linear.weight)


@pytest.mark.parametrize("width", [1, 2, 3, WIDTH])
def test_works_at_every_width_that_it_does_not_refuse(cls, width):
    reason = cls().refuses(width, CLASSES)
    assert reason is None or (width < WIDTH and f"found {width}" in reason)
    if reason is None:
        head = cls().head(width, CLASSES).double()
        assert head(features()[:, :width]).shape == (6, CLASSES)
        assert head.loss(features()[:, :width], LABELS).isfinite().all()
