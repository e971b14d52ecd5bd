from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.special import log_softmax

from trainables.losses.label_smoothing import LabelSmoothing
from trainables.losses.sce import SCE

LABELS = torch.arange(40) % 10


def random_logits() -> torch.Tensor:
    return torch.randn(40, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5


def targets(e: float) -> np.ndarray:
    """(1 - e) onehot + e / K, which sums to 1."""
    return (1 - e) * np.eye(10)[LABELS] + e / 10


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3, 0.999])
def test_loss_is_cross_entropy_with_the_smoothed_targets(on_logits, e):
    z = random_logits()
    found = on_logits(LabelSmoothing(e=e)).loss(z, LABELS)
    expected = -(targets(e) * log_softmax(z.numpy(), axis=1)).sum(axis=1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_loss_is_that_of_torch_at_the_papers_parameter(on_logits):
    z = random_logits()
    found = on_logits(LabelSmoothing()).loss(z, LABELS).mean()
    expected = F.cross_entropy(z, LABELS, label_smoothing=0.1)
    assert found.item() == pytest.approx(expected.item(), rel=0, abs=1e-12)


def test_no_smoothing_is_softmax_cross_entropy(on_logits):
    z = random_logits()
    found = on_logits(LabelSmoothing(e=0.0)).loss(z, LABELS)
    assert torch.equal(found, on_logits(SCE()).loss(z, LABELS))


def test_optimum_has_the_targets_as_probabilities(on_logits):
    head = on_logits(LabelSmoothing(e=0.3))
    z = torch.from_numpy(np.log(targets(0.3))).requires_grad_()
    (gradient,) = torch.autograd.grad(head.loss(z, LABELS).sum(), z)
    assert gradient.abs().max() < 1e-12
    np.testing.assert_allclose(head.probabilities(z).detach(), targets(0.3), rtol=0, atol=1e-12)


def test_inner_objective_has_no_smoothing(on_logits):
    z = random_logits()
    expected = on_logits(SCE()).loss(z, LABELS)
    assert torch.equal(on_logits(LabelSmoothing()).inner(z, LABELS), expected)


@pytest.mark.parametrize(
    "wrong", [{"e": -0.001}, {"e": 1.0}, {"e": float("nan")}, {"smoothing": 0.1}], ids=str
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LabelSmoothing(**wrong)
