from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from trainables.config import Cell
from trainables.diagnostics.embedding import Embedding, _separation
from trainables.evaluation import measure


def test_keeps_the_features_of_the_first_images(sce, splits):
    part = splits.test.first(300)
    found = Embedding().examine(sce, part, seed=0)
    with torch.no_grad():
        assert torch.allclose(found.arrays["features"], sce.features(part.images), atol=1e-5)
        assert torch.equal(found.arrays["predicted"], sce(part.images).argmax(dim=1))
    assert torch.equal(found.arrays["labels"], part.labels)


def test_separation_is_fishers_and_the_nearest_means():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 4, dtype=torch.float64, generator=generator)
    features[:, 0] += labels
    found = _separation(features, labels)
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    between = sum((y == k).sum() * ((means[k] - x.mean(0)) ** 2).sum() for k in range(3))
    within = sum(((x[y == k] - means[k]) ** 2).sum() for k in range(3))
    assert found["fisher"] == pytest.approx(between / within)
    assert found["nearest_mean"] == pytest.approx(NearestCentroid().fit(x, y).score(x, y))


def test_a_class_that_is_absent_is_no_class():
    found = _separation(torch.eye(4).double(), torch.tensor([3, 3, 7, 7]))
    assert found["nearest_mean"] == 1.0


def test_classes_of_one_point_each_have_no_ratio():
    assert _separation(torch.eye(4).double(), torch.arange(4)) == {"nearest_mean": 1.0}


def test_is_stored_as_arrays_and_numbers(sce, splits):
    (objects,) = measure(sce, [Cell(probe=Embedding(), split="test", n=20)], splits)
    assert set(objects) == {"arrays.safetensors", "numbers.json"}


def test_trained_features_lie_apart(sce, splits):
    assert Embedding().examine(sce, splits.test, 0).numbers["nearest_mean"] > 0.9
