from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, ValidationError

from trainables import registry
from trainables.attacks.budgets import (
    BallField,
    L2BallField,
    L2Path,
    LInfPath,
    project,
    random_point,
    size,
    steepest,
)
from trainables.attacks.pgd import PGD
from trainables.seeding import Draws

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
        ("path_l2", "l2", (3, 32, 32), 7 * 0.04),
        ("path_linf", "linf", (1, 28, 28), 7 * 0.04),
        ({"name": "path_l2", "kappa": 6.0}, "l2", (1, 28, 28), 7 * 6 * 0.04),
        ({"name": "path_linf", "kappa": 0.5}, "linf", (1, 28, 28), 7 * 0.5 * 0.04),
    ],
    ids=str,
)
def test_radius_reads_eps_as_methods_says(name, norm, shape, expected):
    budget = registry.build("budget", name)
    radius = budget.radius(torch.rand(5, *shape), 0.04, 7)
    assert budget.norm == norm
    assert radius.shape == (5, 1, 1, 1)
    assert torch.allclose(radius, torch.full_like(radius, expected))


def test_l2_rel_is_a_share_of_the_images_own_norm():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images[2] = 0.0
    radius = registry.build("budget", "l2_rel").radius(images, 0.04, 7)
    expected = [0.04 * float((image.double() ** 2).sum()) ** 0.5 for image in images]
    assert radius.shape == (5, 1, 1, 1)
    assert radius.flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert radius.flatten()[2] == 0


@pytest.mark.parametrize("name", ["l2_abs", "l2_rms", "l2_rel", "linf"])
def test_step_in_a_ball_is_two_and_a_half_radii_over_all_steps(name):
    budget, images = registry.build("budget", name), torch.rand(3, 1, 4, 4)
    expected = 2.5 * budget.radius(images, 0.3, 10) / 10
    assert torch.allclose(budget.step_length(images, 0.3, 10), expected)
    assert torch.equal(budget.radius(images, 0.3, 1), budget.radius(images, 0.3, 99))


@pytest.mark.parametrize("steps", [1, 10, 50])
@pytest.mark.parametrize("path", [L2Path(kappa=3.0), LInfPath(kappa=3.0)], ids=str)
def test_step_of_a_path_is_kappa_eps_however_many_there_are(path, steps):
    images = torch.rand(3, 1, 4, 4)
    assert torch.allclose(path.step_length(images, 0.02, steps), torch.tensor(0.06))
    far = random(3, 1, 4, 4) * 1e3
    assert torch.equal(path.project(far, path.radius(images, 0.02, steps)), far)


def straight(affine, d=9):
    """Two classes of a linear model, W x, and images from which a path meets no edge."""
    weight = random(2, d).double()
    return affine(weight, weight.new_zeros(2)), torch.full((4, 1, 3, 3), 0.5).double()


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("name", ["path_l2", "path_linf"])
def test_straight_path_ends_n_kappa_eps_away(affine, batch_of, name, kappa):
    classifier, images = straight(affine)
    budget = {"name": name, "kappa": kappa}
    attack = PGD(budget=budget, eps=0.002, steps=7, stop="last", surface="margin_raw")
    labels = torch.tensor([0, 1, 0, 1])
    delta = attack.perturb(classifier, batch_of(images, labels)).images - images
    weight = classifier.head.linear.weight
    normal = (weight[1] - weight[0]) * torch.where(labels == 0, 1.0, -1.0).double().unsqueeze(1)
    unit = normal / normal.norm(dim=1, keepdim=True) if attack.norm == "l2" else normal.sign()
    assert torch.allclose(delta.flatten(1), 7 * kappa * 0.002 * unit, rtol=1e-9, atol=1e-12)
    assert torch.allclose(size(delta, attack.norm), attack.radius(images))


@pytest.mark.parametrize("name", registry.names("budget"))
def test_a_ball_is_a_threat_model_and_a_path_is_not(name):
    budget = registry.build("budget", name)
    assert budget.threat != name.startswith("path")
    columns = PGD(budget=name, eps=0.1, steps=2).columns()
    assert columns.norm == (budget.norm if budget.threat else None)


def test_kappa_stands_in_a_cells_name():
    assert PGD(budget="path_l2", eps=0.1, steps=2).columns().extra == {"kappa": 1.0}
    three = PGD(budget={"name": "path_linf", "kappa": 3.0}, eps=0.1, steps=2).columns()
    assert (three.budget, three.extra) == ("path_linf", {"kappa": 3.0})


@pytest.mark.parametrize("kappa", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["path_l2", "path_linf"])
def test_kappa_out_of_range_is_refused(name, kappa):
    with pytest.raises(ValidationError, match="kappa"):
        registry.build("budget", {"name": name, "kappa": kappa})


@pytest.mark.parametrize(
    ("field", "fits"),
    [
        (BallField, {"l2_abs", "l2_rms", "l2_rel", "linf"}),
        (L2BallField, {"l2_abs", "l2_rms", "l2_rel"}),
    ],
    ids=["ball", "l2_ball"],
)
def test_fields_for_balls_refuse_what_is_none(field, fits):
    reader = TypeAdapter(field, config=ConfigDict(arbitrary_types_allowed=True))
    for name in registry.names("budget"):
        if name in fits:
            assert reader.validate_python(name) == registry.build("budget", name)
        else:
            with pytest.raises(ValidationError, match=f"expected a ball .*{name}"):
                reader.validate_python(name)


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball(norm):
    radius = torch.linspace(0, 1, 300).view(-1, 1, 1, 1)
    images = torch.rand(300, 3, 2, 2)
    delta = random_point(images, radius, norm, Draws((1,), torch.arange(300))) - images
    assert (size(delta, norm) <= radius * (1 + 1e-5) + 1e-6).all()
    assert size(delta, norm)[1:].div(radius[1:]).max() > 0.97


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
