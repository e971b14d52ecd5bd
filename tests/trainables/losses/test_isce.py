"""I-SCE against the paper's text: eqs. 2 and 3 written out, and the floors of its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.special import logsumexp

from trainables.losses.isce import ISCE

LOGITS = arrays(np.float64, (6, 10), elements=st.floats(-100, 100))
LABELS = st.lists(st.integers(0, 9), min_size=6, max_size=6).map(torch.tensor)
S = st.floats(1, 5)
M = st.floats(0, 2)
# s, m, the loss at its optimum and the true class's normalised logit there.
FLOORS = [(1.0, 0.0, 1.41987, 0.94868), (1.0, 0.1, 1.34498, 0.94868), (2.0, 0.1, 0.72857, 0.98639)]


def random_logits(rows: int, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 10, dtype=torch.float64, generator=generator) * scale


def normalised(z: np.ndarray) -> np.ndarray:
    return z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)


def equation_3(f: np.ndarray, label: int, s: float, m: float) -> float:
    """The paper's sum over classes for one sample, with its indicators y_i left in."""
    y = np.eye(len(f))[label]
    total = 0.0
    for i in range(len(f)):
        own = y[i] * (s * f[i] + m) + (1 - y[i]) * f[i]
        total -= y[i] * (own - logsumexp(np.append(np.delete(f, i), own)))
    return total


def equation_2(f: np.ndarray, s: float, m: float) -> np.ndarray:
    """Probabilities when s and m are put on the largest logit."""
    g = f.copy()
    i = int(f.argmax())
    g[i] = s * f[i] + m
    return np.exp(g - logsumexp(g))


@given(z=LOGITS, labels=LABELS, s=S, m=M)
def test_loss_is_equation_3_as_the_paper_writes_it(on_logits, z, labels, s, m):
    found = on_logits(ISCE(s=s, m=m)).loss(torch.from_numpy(z), labels)
    expected = [equation_3(f, int(y), s, m) for f, y in zip(normalised(z), labels, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


def test_loss_at_s_1_m_0_is_cross_entropy_of_normalised_logits(on_logits):
    z, labels = random_logits(50), torch.arange(50) % 10
    found = on_logits(ISCE(s=1.0, m=0.0)).loss(z, labels)
    expected = F.cross_entropy(z / z.norm(dim=1, keepdim=True), labels, reduction="none")
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_normalisation_is_per_sample(on_logits):
    z, labels = random_logits(8), torch.arange(8)
    head = on_logits(ISCE())
    assert torch.allclose(head.deployed(z).norm(dim=1), torch.ones(8, dtype=torch.float64))
    alone = torch.cat([head.loss(z[i : i + 1], labels[i : i + 1]) for i in range(8)])
    assert torch.allclose(head.loss(z, labels), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalize", ["logits", "features", "none"])
@pytest.mark.parametrize(("s", "m"), [(1.0, 0.0), (1.0, 0.1), (2.0, 0.1), (3.5, 1.0)])
def test_gradient_is_that_of_finite_differences(on_logits, normalize, s, m):
    head = on_logits(ISCE(s=s, m=m, normalize=normalize))
    labels = torch.arange(5)
    z = random_logits(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head.loss(x, labels), (z,))


@pytest.mark.parametrize(("s", "m", "floor", "f_y"), FLOORS)
def test_loss_floor_is_reached_by_free_logits(on_logits, s, m, floor, f_y):
    head, labels = on_logits(ISCE(s=s, m=m)), torch.arange(10)
    z = random_logits(10, scale=1.0).requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = head.loss(z, labels).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    reached = head.loss(z, labels).detach()
    assert torch.allclose(reached, torch.full_like(reached, floor), rtol=0, atol=1e-4)
    own = head.deployed(z.detach()).diagonal()
    assert torch.allclose(own, torch.full_like(own, f_y), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("s", "m", "floor", "f_y"), FLOORS)
@given(z=LOGITS, labels=LABELS)
def test_no_logits_go_below_the_loss_floor(on_logits, s, m, floor, f_y, z, labels):
    assert on_logits(ISCE(s=s, m=m)).loss(torch.from_numpy(z), labels).min() > floor - 1e-4


def test_margin_is_added_to_the_true_class(on_logits):
    z, labels = random_logits(20), torch.arange(20) % 10
    plain = on_logits(ISCE(m=0.0)).loss(z, labels)
    assert (on_logits(ISCE(m=0.1)).loss(z, labels) < plain).all()


@given(z=LOGITS, s=S, m=M)
def test_probabilities_are_equation_2(on_logits, z, s, m):
    found = on_logits(ISCE(s=s, m=m)).probabilities(torch.from_numpy(z))
    expected = [equation_2(f, s, m) for f in normalised(z)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


@given(z=LOGITS, s=S, m=M)
def test_inference_keeps_the_class_while_it_raises_the_largest_logit(on_logits, z, s, m):
    head = on_logits(ISCE(s=s, m=m))
    f = head.deployed(torch.from_numpy(z))
    top = f.max(dim=1).values
    raised = (s - 1) * top + m > 1e-9  # below rounding a tie may break either way
    same = head.probabilities(torch.from_numpy(z)).argmax(dim=1) == f.argmax(dim=1)
    assert same[raised].all()


def test_inference_changes_the_class_in_the_counter_example(on_logits):
    head = on_logits(ISCE(s=2.0, m=0.1))
    z = -torch.ones(1, 10, dtype=torch.float64)
    assert head.deployed(z)[0, 0] == pytest.approx(-0.316, abs=5e-4)
    assert head.probabilities(z).argmax() != head.deployed(z).argmax()


@pytest.mark.parametrize("normalize", ["logits", "features", "none"])
@pytest.mark.parametrize(("s", "m"), [(1.0, 0.0), (1.0, 0.1), (2.0, 0.0), (2.0, 0.1)])
def test_only_s_1_m_0_leaves_training_and_inference_as_they_are(on_logits, normalize, s, m):
    loss = ISCE(s=s, m=m, normalize=normalize)
    head, z, labels = on_logits(loss), random_logits(20), torch.arange(20) % 10
    f = head.deployed(head(z))
    assert torch.allclose(head.inferred(head(z)), f) == loss.infers_deployed
    plain = F.cross_entropy(f, labels, reduction="none")
    assert torch.allclose(head.loss(z, labels), plain) == loss.trains_deployed
    assert loss.infers_deployed == loss.trains_deployed == ((s, m) == (1.0, 0.0))


def test_inferred_logits_put_s_and_m_on_the_largest(on_logits):
    z = torch.tensor([[3.0, 4.0] + [0.0] * 8]).double()
    found = on_logits(ISCE(s=2.0, m=0.1)).inferred(z)
    assert found.flatten().tolist() == pytest.approx([0.6, 2 * 0.8 + 0.1] + [0.0] * 8)


def test_deployed_logits_do_not_know_the_labels(isce, splits):
    images = splits.test.images[:20]
    with torch.no_grad():
        one = isce.training_pass(images, splits.test.labels[:20]).logits
        other = isce.training_pass(images, (splits.test.labels[:20] + 1) % 10).logits
        assert torch.equal(one, other)
        assert torch.equal(one, isce(images))


def test_gradient_reaches_the_weights_through_the_normalisation():
    head = ISCE().head(4, 3)
    head.loss(torch.ones(2, 4), torch.tensor([0, 1])).sum().backward()
    assert head.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_extreme_logits_give_a_finite_loss_and_gradient(on_logits, value, dtype):
    head = on_logits(ISCE()).to(dtype)
    z = torch.full((3, 10), value, dtype=dtype)
    z[1, 4] = -value
    z.requires_grad_()
    loss = head.loss(z, torch.tensor([0, 4, 9]))
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_normalize_logits_divides_z_by_its_norm(on_logits):
    z = random_logits(5)
    head = on_logits(ISCE(normalize="logits"))
    assert torch.equal(head(z), z)
    assert torch.allclose(head.deployed(z), z / z.norm(dim=1, keepdim=True))
    assert not ISCE(normalize="logits").deploys_raw


def test_normalize_features_divides_h_by_its_norm_before_the_layer():
    torch.manual_seed(0)
    head = ISCE(normalize="features", s=2.0, m=0.3).head(4, 3).double()
    h, labels = torch.randn(5, 4, dtype=torch.float64) * 7, torch.tensor([0, 1, 2, 0, 1])
    unit = h / h.norm(dim=1, keepdim=True)
    f = (unit @ head.linear.weight.T + head.linear.bias).detach()
    assert torch.allclose(head(h), f)
    assert torch.allclose(head.deployed(head(h)), f)
    expected = [equation_3(row, int(y), 2.0, 0.3) for row, y in zip(f.numpy(), labels, strict=True)]
    np.testing.assert_allclose(head.loss(h, labels).detach(), expected, atol=1e-10)
    assert ISCE(normalize="features").deploys_raw


def test_normalize_none_is_equation_3_on_the_raw_logits(on_logits):
    z, labels = random_logits(6), torch.arange(6)
    head = on_logits(ISCE(s=2.0, m=0.3, normalize="none"))
    assert torch.equal(head.deployed(z), z)
    expected = [equation_3(row, int(y), 2.0, 0.3) for row, y in zip(z.numpy(), labels, strict=True)]
    np.testing.assert_allclose(head.loss(z, labels), expected, atol=1e-10)
    assert ISCE(normalize="none").deploys_raw


@pytest.mark.parametrize("normalize", ["logits", "none"])
@given(z=LOGITS, labels=LABELS)
def test_inner_objective_is_the_margin_of_the_raw_logits(on_logits, normalize, z, labels):
    found = on_logits(ISCE(s=2.0, m=0.3, normalize=normalize)).inner(torch.from_numpy(z), labels)
    expected = [max(np.delete(row, y)) - row[y] for row, y in zip(z, labels.numpy(), strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_inner_objective_sees_what_cross_entropy_does_not_at_the_optimum(on_logits):
    head, labels = on_logits(ISCE()), torch.arange(10)
    # The optimum: one logit stands out, the others are equal.
    z = F.normalize(10 * torch.eye(10, dtype=torch.float64) - 1).requires_grad_()
    f = z.detach()

    def across(values: torch.Tensor) -> torch.Tensor:
        """Length of the gradient's part that changes more than z's length."""
        (gradient,) = torch.autograd.grad(values.sum(), z)
        return (gradient - (gradient * f).sum(1, keepdim=True) * f).norm(dim=1)

    assert across(F.cross_entropy(head(z), labels, reduction="none")).max() < 1e-12
    assert across(F.cross_entropy(head.deployed(head(z)), labels, reduction="none")).max() < 1e-12
    seen = across(head.inner(z, labels))
    assert torch.allclose(seen, torch.full_like(seen, 0.943), rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"s": 0.999},
        {"m": -1e-9},
        {"s": float("inf")},
        {"m": float("nan")},
        {"normalize": "rows"},
        {"margin": 0.1},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ISCE(**wrong)
