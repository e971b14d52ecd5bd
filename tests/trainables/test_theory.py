"""The paper's theory against its equations written out, Figure 5, and the slips in its proof."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp, softmax

from trainables import theory
from trainables.losses.isce import ISCE

K = 10
LOGITS = arrays(np.float64, (5, K), elements=st.floats(-20, 20))
LABELS = arrays(np.int64, (5,), elements=st.integers(0, K - 1))
S = st.floats(1, 5)
M = st.floats(0, 2)
UNIT_PAIRS = 20_000


def equations(f: np.ndarray, i: int, s: float, m: float) -> tuple[float, float, float]:
    """P, P_I and z of one sample, term by term as eqs. 1, 2 and the property print them."""
    rest = sum(math.exp(f[j]) for j in range(len(f)) if j != i)
    own, boosted = math.exp(f[i]), math.exp(s * f[i] + m)
    z = s * boosted / (boosted + rest) ** 2 - own / (own + rest) ** 2
    return own / (own + rest), boosted / (boosted + rest), z


def by_loop(f: np.ndarray, i: np.ndarray, s: float, m: float) -> np.ndarray:
    """`equations` of every sample: (3, n)."""
    return np.array([equations(row, k, s, m) for row, k in zip(f, i, strict=True)]).T


def others(f: np.ndarray, i: np.ndarray) -> np.ndarray:
    """S of every sample: (n,)."""
    return np.array([np.exp(np.delete(row, k)).sum() for row, k in zip(f, i, strict=True)])


def unit_pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random unit-norm f, f_adv and labels: right at x, wrong at x + delta, f_i falling."""
    f, f_adv = np.random.default_rng(seed).normal(size=(2, UNIT_PAIRS, K))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    f_adv /= np.linalg.norm(f_adv, axis=1, keepdims=True)
    i = f.argmax(1)
    rows = np.arange(len(f))
    keep = (f_adv.argmax(1) != i) & (f[rows, i] > f_adv[rows, i])
    return f[keep], f_adv[keep], i[keep]


@given(f=LOGITS, i=LABELS)
def test_probability_is_softmax(f, i):
    expected = softmax(f, axis=1)[np.arange(5), i]
    np.testing.assert_allclose(theory.probability(f, i), expected, rtol=1e-12)


@given(f=LOGITS, i=LABELS, s=S, m=M)
def test_inference_probability_is_equation_2(f, i, s, m):
    boosted = f.copy()
    boosted[np.arange(5), i] = s * f[np.arange(5), i] + m
    expected = np.exp(boosted[np.arange(5), i] - logsumexp(boosted, axis=1))
    np.testing.assert_allclose(theory.inference_probability(f, i, s, m), expected, rtol=1e-12)


@pytest.mark.parametrize(("s", "m"), [(1.0, 0.1), (2.0, 0.0), (3.5, 0.7)])
def test_inference_probability_is_what_the_loss_deploys(s, m):
    f = np.random.default_rng(0).normal(size=(50, K)) * 3
    head = ISCE(s=s, m=m, normalize="none").head(4, K)
    deployed = head.probabilities(torch.from_numpy(f)).numpy()
    i = f.argmax(1)
    expected = deployed[np.arange(50), i]
    np.testing.assert_allclose(theory.inference_probability(f, i, s, m), expected, rtol=1e-12)


@pytest.mark.parametrize(("s", "m"), [(1.0, 0.1), (2.0, 0.0), (3.5, 0.7)])
def test_minus_its_logarithm_is_the_training_loss(s, m):
    source = np.random.default_rng(1)
    f, i = source.normal(size=(50, K)), source.integers(0, K, 50)
    head = ISCE(s=s, m=m, normalize="logits").head(K, K).double()
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(K))
        head.linear.bias.zero_()
        loss = head.loss(torch.from_numpy(f), torch.from_numpy(i)).numpy()
    unit = f / np.linalg.norm(f, axis=1, keepdims=True)
    np.testing.assert_allclose(-np.log(theory.inference_probability(unit, i, s, m)), loss)


@given(f=LOGITS, f_adv=LOGITS, i=LABELS, s=S, m=M)
def test_intervals_and_their_gain_are_equations_6_7_10_and_14(f, f_adv, i, s, m):
    p, p_i, _ = by_loop(f, i, s, m)
    p_adv, p_i_adv, _ = by_loop(f_adv, i, s, m)
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(theory.interval(f, f_adv, i), p - p_adv, **close)
    np.testing.assert_allclose(theory.inference_interval(f, f_adv, i, s, m), p_i - p_i_adv, **close)
    # Eq. 10 with its second line mended.
    expected = p_i - p_i_adv - p + p_adv
    np.testing.assert_allclose(theory.interval_gain(f, f_adv, i, s, m), expected, **close)


@given(f=LOGITS, i=LABELS, s=S, m=M)
def test_advantage_is_equation_11_with_the_sign_of_its_exponent(f, i, s, m):
    h = theory.advantage(f, i, s, m)
    p, p_i, _ = by_loop(f, i, s, m)
    np.testing.assert_allclose(h, p_i - p, rtol=0, atol=1e-13)
    exponent = (s - 1) * f[np.arange(5), i] + m
    told = (exponent == 0) | (np.abs(exponent) > 1e-250)  # nearer to 0, h underflows
    np.testing.assert_array_equal(np.sign(h)[told], np.sign(exponent)[told])


def test_advantage_keeps_its_digits_where_p_and_p_i_are_almost_equal():
    # 1 - P = 9 e^-40: P_I - P, taken literally, is 0; h is (1 - P)(1 - e^-m).
    f = np.zeros(K)
    f[3] = 40.0
    expected = 9 * math.exp(-40) * -math.expm1(-0.1)
    assert theory.advantage(f, 3, 1, 0.1) == pytest.approx(expected, rel=1e-12)


def test_equation_12_needs_a_positive_logit():
    # s = 2 > (f_i - m) / f_i = 1.316 as eq. 12 demands, and yet h < 0: eq. 9 fails.
    f = np.full(K, -0.316)
    assert theory.advantage(f, 0, 2, 0.1) < 0
    assert theory.advantage(-f, 0, 2, 0.1) > 0


@given(f=LOGITS, f_adv=LOGITS, i=LABELS)
def test_s_1_and_m_0_change_nothing(f, f_adv, i):
    assert not theory.advantage(f, i, 1, 0).any()
    assert not theory.interval_gain(f, f_adv, i, 1, 0).any()
    assert not theory.slope(f, i, 1, 0).any()
    np.testing.assert_array_equal(
        theory.inference_probability(f, i, 1, 0), theory.probability(f, i)
    )


@given(f=LOGITS, i=LABELS, s=S, m=M)
def test_slope_is_equation_15_and_the_derivative_of_h(f, i, s, m):
    slope = theory.slope(f, i, s, m)
    np.testing.assert_allclose(slope, by_loop(f, i, s, m)[2] * others(f, i), rtol=0, atol=1e-12)
    step = np.zeros_like(f)
    step[np.arange(5), i] = 1e-4

    def h(f):
        p, p_i, _ = by_loop(f, i, s, m)
        return p_i - p

    # Central differences of fourth order.
    numerical = (8 * (h(f + step) - h(f - step)) - h(f + 2 * step) + h(f - 2 * step)) / 12e-4
    np.testing.assert_allclose(slope, numerical, rtol=0, atol=1e-10)


@given(f=LOGITS, i=LABELS, s=S, m=M)
def test_condition_is_the_propertys_z(f, i, s, m):
    rest = others(f, i)
    z = theory.condition(f[np.arange(5), i], rest, s, m)
    # S z <= s / 4 is what has a fixed size; z goes as 1 / S.
    np.testing.assert_allclose(z * rest, by_loop(f, i, s, m)[2] * rest, rtol=0, atol=1e-12)


def test_huge_logits_neither_overflow_nor_lose_the_sign():
    f = np.zeros((4, 3))
    f[:, 0] = [1e4, -1e4, 700, -700]
    f[:, 1] = [-1e4, 1e4, -700, 700]
    i = np.zeros(4, int)
    np.testing.assert_array_equal(theory.probability(f, i) > 0.5, [True, False, True, False])
    for values in (
        theory.inference_probability(f, i, 2, 0.1),
        theory.advantage(f, i, 2, 0.1),
        theory.slope(f, i, 2, 0.1),
        theory.condition(f[:, 0], 8.0, 2, 0.1),
        theory.check_property(f, -f, i, 2, 0.1).z,
        theory.check_property(f - 1e4, f + 1e4, i, 2, 0.1).z,
    ):
        assert np.isfinite(values).all()
    # e^709.8 is the largest float: the terms of z overflow here, z does not.
    assert theory.condition(400.0, 8.0, 1, 0.1) == pytest.approx(
        math.exp(-400) * math.expm1(-0.1), rel=1e-12
    )


# --- Figure 5


def test_figure_5_is_z_over_s_and_m():
    s, m = [1.0, 1.3, 2.0], [0.02, 0.1]
    surface = theory.figure5(s, m)
    f = np.array([0.97, math.log(8.0)])
    expected = [[equations(f, 0, a, b)[2] for b in m] for a in s]
    np.testing.assert_allclose(surface, expected, rtol=1e-12)


def test_figure_5s_extremes():
    surface = theory.figure5()
    assert surface.shape == (51, 51)
    assert surface.max() == pytest.approx(0.0391653, abs=1e-7)
    assert np.unravel_index(surface.argmax(), surface.shape) == (50, 50)
    assert surface.min() == surface[0, 0] == 0
    assert surface[0, -1] == pytest.approx(1.16e-3, abs=5e-6)


@given(s=st.floats(1, 2), m=st.floats(1e-6, 0.1))
def test_z_is_positive_on_the_papers_region(s, m):
    assert theory.condition(theory.FIGURE5_F_I, theory.FIGURE5_OTHERS, s, m) > 0


def test_z_is_negative_there_for_larger_logits():
    m = np.linspace(0, 0.1, 1001)[1:]
    s = np.linspace(1, 2, 1001)
    assert np.mean(theory.figure5(s, m, f_i=2) < 0) == pytest.approx(0.1655, abs=5e-4)
    for f_i in (3, 4, 10, 100):
        assert (theory.figure5(s, m, f_i=f_i) < 0).all()


def test_z_turns_negative_at_a_larger_scale():
    low, high = theory.figure5([5.44, 5.45], [0.1])[:, 0]
    assert high < 0 < low


# --- From the condition to the property


@given(f=LOGITS, f_adv=LOGITS, i=LABELS, s=S, m=M)
def test_check_property_agrees_with_the_equations(f, f_adv, i, s, m):
    found = theory.check_property(f.astype(np.float32), f_adv.astype(np.float32), i, s, m)
    f, f_adv = f.astype(np.float32).astype(float), f_adv.astype(np.float32).astype(float)
    p, p_i, z = by_loop(f, i, s, m)
    p_adv, p_i_adv, _ = by_loop(f_adv, i, s, m)
    assert found.z.dtype == found.gain.dtype == np.float64
    np.testing.assert_allclose(found.z, z, rtol=1e-6, atol=1e-12 * np.abs(z).max())
    np.testing.assert_allclose(found.L, p - p_adv, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.L_I, p_i - p_i_adv, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.gain, found.L_I - found.L, rtol=0, atol=1e-12)
    own = np.arange(5), i
    np.testing.assert_array_equal(found.falls, f[own] > f_adv[own])
    np.testing.assert_array_equal(found.holds, found.z > 0)
    np.testing.assert_array_equal(found.larger, found.gain > 0)
    np.testing.assert_array_equal(found.violations, found.holds & (found.gain <= 0))


def test_the_path_runs_from_f_adv_to_f_with_both_ends():
    # At s = 1, m = 0.1, S = 8: z > 0 where f_i < ln 8 - m / 2 = 2.03.
    f, f_adv = np.zeros((2, 4, 9))
    f[:, 0], f_adv[:, 0] = [2.0, 2.1, 0.0, 2.1], [0.0, 0.0, 2.1, 2.1]
    # The last has z > 0 at both ends, where S = 8 cosh 3, and z < 0 half-way, where S = 8.
    f[3, 1:] = 3, 3, 3, 3, -3, -3, -3, -3
    f_adv[3, 1:] = -f[3, 1:]
    found = theory.check_property(f.tolist(), f_adv.tolist(), [0, 0, 0, 0], 1, 0.1)
    assert found.holds.tolist() == [True, False, True, True]
    assert found.holds_on_path.tolist() == [True, False, False, False]


def test_counts():
    yes, no = True, False
    empty = np.zeros(4)
    found = theory.Property(
        z=empty,
        L=empty,
        L_I=empty,
        gain=empty,
        falls=np.array([yes, no, no, no]),
        holds=np.array([yes, yes, yes, no]),
        holds_on_path=np.array([yes, no, yes, no]),
        larger=np.array([no, yes, no, no]),
    )
    assert found.counts() == {
        "n": 4,
        "falls": 1,
        "holds": 3,
        "holds_on_path": 2,
        "larger": 1,
        "violations": 2,
    }


@pytest.mark.parametrize(("s", "m"), [(1.0, 0.1), (2.0, 0.1)])
def test_unit_norm_logits_can_violate_the_property_even_with_z_above_0_on_the_path(s, m):
    f, f_adv, i = unit_pairs()
    found = theory.check_property(f, f_adv, i, s, m)
    assert found.falls.all() and found.holds.all()
    worst = found.gain.argmin()
    assert found.violations[worst] and found.holds_on_path[worst]
    # Not by rounding: the equations, written out, say so too.
    p, p_i, z = equations(f[worst], i[worst], s, m)
    p_adv, p_i_adv, _ = equations(f_adv[worst], i[worst], s, m)
    assert z > 1e-4
    assert (p_i - p_i_adv) - (p - p_adv) < -1e-4
    # It takes logits whose SCE interval is not above 0 itself.
    assert (found.L[found.violations] <= 0).all()
    assert found.violations.mean() < 0.01


@given(f=LOGITS, i=LABELS, fall=st.floats(0.01, 20), s=S, m=M)
def test_with_the_other_logits_held_z_above_0_on_the_path_gives_the_property(f, i, fall, s, m):
    f_adv = f.copy()
    f_adv[np.arange(5), i] -= fall
    found = theory.check_property(f, f_adv, i, s, m)
    assert not (found.holds_on_path & ~found.larger).any()


def test_with_the_other_logits_held_the_unit_norm_violations_vanish():
    f, f_adv, i = unit_pairs()
    rows = np.arange(len(f))
    assert theory.check_property(f, f_adv, i, 2, 0.1).violations.any()
    held = f.copy()
    held[rows, i] = f_adv[rows, i]
    found = theory.check_property(f, held, i, 2, 0.1)
    assert found.holds_on_path.mean() > 0.999
    assert not found.violations.any()


def test_with_the_other_logits_held_z_above_0_at_x_alone_is_not_enough():
    # At s = 5, m = 0, S = 8: h falls from 0 until f_i = -0.43 and is back at 0 at f_i = 0.
    f, f_adv = np.zeros((2, 1, 9))
    f[0, 0], f_adv[0, 0] = -0.3, -6.0
    found = theory.check_property(f, f_adv, [0], 5, 0)
    assert found.falls.all() and found.violations.all() and not found.holds_on_path.any()


# --- Mistakes


F = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.advantage(F, [0, 1], 0.9, 0), "s must be a finite number >= 1, not 0.9"),
        (lambda: theory.slope(F, [0, 1], math.nan, 0), "s must be a finite number >= 1, not nan"),
        (lambda: theory.slope(F, [0, 1], math.inf, 0), "s must be a finite number >= 1, not inf"),
        (lambda: theory.slope(F, [0, 1], 1, math.inf), "m must be a finite number >= 0, not inf"),
        (lambda: theory.condition(1, 8, 1, -0.1), "m must be a finite number >= 0, not -0.1"),
        (lambda: theory.figure5([1, 0.5]), "s must be a finite number >= 1"),
        (lambda: theory.figure5(m=[-0.1, 0]), "m must be a finite number >= 0"),
        (lambda: theory.figure5(1.0), r"s and m must be lists, not of shapes \(\) and \(51,\)"),
        (lambda: theory.condition(1, 0, 1, 0), "others .* must be above 0"),
        (lambda: theory.probability(1.0, 0), r"f must have shape \(..., K\) with K >= 2, not \(\)"),
        (lambda: theory.probability([[1.0]], [0]), r"with K >= 2, not \(1, 1\)"),
        (lambda: theory.probability([1.0, math.inf], 0), "f must be finite"),
        (lambda: theory.probability(F, [0]), r"i must be integers of shape \(2,\), not int64 \(1,"),
        (lambda: theory.probability(F, [0.0, 1.0]), "i must be integers .*, not float64"),
        (lambda: theory.probability(F, [0, 3]), r"i must be in \[0, 3\)"),
        (lambda: theory.probability(F, [-1, 0]), r"i must be in \[0, 3\)"),
        (lambda: theory.interval(F, F[:1], [0, 1]), r"differ in shape: \(2, 3\) and \(1, 3\)"),
        (lambda: theory.inference_interval(F, F[0], [0, 1], 1, 0), "differ in shape"),
        (lambda: theory.interval_gain(F, F[:, :2], [0, 1], 1, 0), "differ in shape"),
        (lambda: theory.check_property(F, F[:, :2], [0, 1], 1, 0), "differ in shape"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_it_imports_numpy_alone():
    code = "import sys, trainables.theory; print({'torch', 'scipy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
