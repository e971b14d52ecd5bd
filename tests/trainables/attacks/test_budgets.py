from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables import registry
from trainables.attacks.budgets import project, size, steepest

NORMS = ["l2", "linf"]
ORDER = {"l2": 2, "linf": float("inf")}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "norm", "shape", "expected"),
    [
        ("l2_abs", "l2", (1, 28, 28), 0.04),
        ("l2_rms", "l2", (1, 28, 28), 0.04 * 28),
        ("l2_rms", "l2", (3, 32, 32), 0.04 * 3072**0.5),
        ("linf", "linf", (3, 32, 32), 0.04),
    ],
)
def test_radius_reads_eps_as_methods_says(name, norm, shape, expected):
    budget = registry.build("budget", name)
    radius = budget.radius(torch.rand(5, *shape), 0.04)
    assert budget.norm == norm
    assert radius.shape == (5, 1, 1, 1)
    assert torch.allclose(radius, torch.full_like(radius, expected))


@pytest.mark.parametrize("norm", NORMS)
def test_size_is_the_norm_of_each_sample(norm):
    delta = random(4, 3, 5, 5)
    expected = torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[norm], dim=1)
    assert torch.allclose(size(delta, norm).flatten(), expected)


@pytest.mark.parametrize("norm", NORMS)
@given(radius=st.floats(0, 10), seed=st.integers(0, 100))
def test_projection_is_within_the_ball_and_leaves_inner_points(norm, radius, seed):
    delta = random(3, 1, 4, 4, seed=seed)
    ball = torch.full((3, 1, 1, 1), radius)
    projected = project(delta, ball, norm)
    assert (size(projected, norm) <= ball * (1 + 1e-6)).all()
    inside = (size(delta, norm) <= ball).flatten()
    assert torch.equal(projected[inside], delta[inside])


def test_l2_projection_is_along_the_ray():
    delta = random(3, 1, 4, 4)
    projected = project(delta, torch.full((3, 1, 1, 1), 0.5), "l2")
    assert torch.allclose(projected, 0.5 * delta / size(delta, "l2"))


def test_linf_projection_clips_each_pixel():
    delta = torch.tensor([-2.0, -0.1, 0.3, 9.0]).view(1, 1, 2, 2)
    projected = project(delta, torch.full((1, 1, 1, 1), 0.2), "linf").flatten()
    assert torch.allclose(projected, torch.tensor([-0.2, -0.1, 0.2, 0.2]))


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_nothing_is_nothing(norm):
    assert project(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 1, 1), norm).count_nonzero() == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-42, 1e-38, 6e-22, 1e-3, 1.0, 1e20])
def test_steepest_has_length_one_however_small_the_gradient(norm, scale):
    gradient = random(3, 1, 28, 28) * scale  # its squares underflow, or overflow, in float32
    assert torch.allclose(size(steepest(gradient, norm), norm), torch.ones(3, 1, 1, 1))


def test_steepest_in_l2_keeps_the_direction():
    gradient = random(3, 1, 28, 28)
    expected = gradient / size(gradient, "l2")
    assert torch.allclose(steepest(gradient * 6e-22, "l2"), expected, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_of_a_zero_gradient_is_zero(norm):
    assert steepest(torch.zeros(2, 1, 3, 3), norm).count_nonzero() == 0


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_climbs_a_linear_function_fastest(norm):
    gradient = random(1, 1, 6, 6)
    dual = gradient.norm() if norm == "l2" else gradient.abs().sum()
    assert torch.isclose((steepest(gradient, norm) * gradient).sum(), dual)
