from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp

from trainables.losses.sce import SCE


def test_loss_is_the_negative_log_of_equation_1(on_logits):
    z = torch.randn(64, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    labels = torch.arange(64) % 10
    expected = logsumexp(z.numpy(), axis=1) - z.numpy()[np.arange(64), labels.numpy()]
    found = on_logits(SCE()).loss(z, labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_deployed_logits_are_the_raw_ones(on_logits):
    z = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    head = on_logits(SCE())
    assert SCE().deploys_raw
    assert torch.equal(head.deployed(head(z)), z)
    assert torch.allclose(head.probabilities(z), z.exp() / z.exp().sum(1, keepdim=True))
