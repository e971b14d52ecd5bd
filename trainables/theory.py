"""The theory of I-SCE in NumPy: the paper's eqs. 1, 2, 4-7 and 10-15 and its Figure 5.

Symbols are the paper's. f holds the logits at x and f_adv those at x + delta, i is the true class,
S = sum_{j != i} e^{f_j}. All is computed in float64 from u = f_i - ln S and v = s f_i + m - ln S,
P = sigmoid(u) and P_I = sigmoid(v), so that no logit overflows. Everywhere s >= 1 and m >= 0 are
numbers, or arrays that broadcast against i. Other values, logits that are not finite and shapes
that do not fit raise `ValueError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# Figure 5: averages over MNIST and CIFAR-10, says A.2, and the region of s and m.
FIGURE5_F_I = 0.97
FIGURE5_OTHERS = 8.0  # S
FIGURE5_S = np.linspace(1.0, 2.0, 51)
FIGURE5_M = np.linspace(0.0, 0.1, 51)

PATH_POINTS = 33  # on the straight line from f_adv to f, both ends among them


def probability(f: ArrayLike, i: ArrayLike) -> Floats:
    """Eqs. 1 and 4: P(i | x), the softmax of class i.

    Args:
        f: logits (..., K), K >= 2.
        i: classes (...), integers in [0, K).

    Returns:
        (...) in [0, 1].
    """
    f_i, log_others = _split(f, i)
    return _sigmoid(f_i - log_others)


def inference_probability(f: ArrayLike, i: ArrayLike, s: ArrayLike, m: ArrayLike) -> Floats:
    """Eqs. 2 and 5: P_I(i | x), s f_i + m in the place of f_i; (...) in [0, 1]."""
    s, m = _s_m(s, m)
    f_i, log_others = _split(f, i)
    return _sigmoid(s * f_i + m - log_others)


def interval(f: ArrayLike, f_adv: ArrayLike, i: ArrayLike) -> Floats:
    """Eq. 6: L = P(i | x) - P(i | x + delta); f and f_adv (..., K), L (...) in [-1, 1]."""
    _check_pair(f, f_adv)
    return probability(f, i) - probability(f_adv, i)


def inference_interval(
    f: ArrayLike, f_adv: ArrayLike, i: ArrayLike, s: ArrayLike, m: ArrayLike
) -> Floats:
    """Eq. 7: L_I = P_I(i | x) - P_I(i | x + delta); f and f_adv (..., K), L_I (...) in [-1, 1]."""
    _check_pair(f, f_adv)
    return inference_probability(f, i, s, m) - inference_probability(f_adv, i, s, m)


def advantage(f: ArrayLike, i: ArrayLike, s: ArrayLike, m: ArrayLike) -> Floats:
    """Eqs. 11-13: h = P_I - P; (...) in (-1, 1).

    The last line of eq. 12, S (e^{s f_i + m} - e^{f_i}) / ((e^{s f_i + m} + S)(e^{f_i} + S)), which
    is P_I (1 - P)(1 - e^{-t}) with t = (s - 1) f_i + m: accurate where P and P_I are almost equal.

    h > 0 iff t > 0 (until it underflows). Eq. 12 goes on to s > (f_i - m) / f_i, which needs
    f_i > 0: with s > 1 and f_i < -m / (s - 1), h < 0, and eq. 9 fails.
    """
    s, m = _s_m(s, m)
    f_i, log_others = _split(f, i)
    u, v, t = f_i - log_others, s * f_i + m - log_others, (s - 1) * f_i + m
    # With t < 0 the roles of P and P_I change, lest e^{-t} overflow.
    product = _sigmoid(np.maximum(u, v)) * _sigmoid(-np.minimum(u, v))
    return np.asarray(-np.sign(t) * np.expm1(-np.abs(t)) * product)


def interval_gain(
    f: ArrayLike, f_adv: ArrayLike, i: ArrayLike, s: ArrayLike, m: ArrayLike
) -> Floats:
    """Eq. 14: L_I - L = h(f(x)) - h(f(x + delta)); f and f_adv (..., K), result (...) in [-1, 1].

    Eq. 10 says the same once its second line reads -P(i | x) + P(i | x + delta), where the paper
    has = P(i | x) + P(i | x + delta).
    """
    _check_pair(f, f_adv)
    return advantage(f, i, s, m) - advantage(f_adv, i, s, m)


def slope(f: ArrayLike, i: ArrayLike, s: ArrayLike, m: ArrayLike) -> Floats:
    """Eq. 15: dh/df_i = S z = s P_I (1 - P_I) - P (1 - P); f (..., K), i and the result (...).

    The derivative at fixed f_j, j != i. L2-normalisation couples them to f_i: then

        dh = S z df_i + (P (1 - P) - P_I (1 - P_I)) d ln S,

    so that z > 0 at x does not give L_I > L. Nor does z > 0 on the whole path from x + delta to x,
    unless S is constant and f_i rises on it.
    """
    return _slope(*_split(f, i), *_s_m(s, m))


def condition(f_i: ArrayLike, others: ArrayLike, s: ArrayLike, m: ArrayLike) -> Floats:
    """The property's z = s e^{s f_i + m} / (e^{s f_i + m} + S)^2 - e^{f_i} / (e^{f_i} + S)^2.

    Args:
        f_i: the true class's logit.
        others: S > 0. The arguments' shapes broadcast.
        s: scale.
        m: margin.

    Returns:
        z of the broadcast shape; the property asks for z > 0.
    """
    s, m = _s_m(s, m)
    f_i, others = np.asarray(f_i, np.float64), np.asarray(others, np.float64)
    if not np.all(others > 0):
        raise ValueError("others = sum over j != i of e^{f_j} must be above 0")
    return np.asarray(_slope(f_i, np.log(others), s, m) / others)


def figure5(
    s: ArrayLike = FIGURE5_S,
    m: ArrayLike = FIGURE5_M,
    *,
    f_i: float = FIGURE5_F_I,
    others: float = FIGURE5_OTHERS,
) -> Floats:
    """Figure 5: the surface of z over s and m.

    At the paper's f_i and S, z > 0 on s in [1, 2], m in (0, 0.1], as A.2 claims: from 0 at (1, 0)
    to 0.0391653 at (2, 0.1). Not so elsewhere: from f_i = 3 on z < 0 on all of that region.

    Args:
        s: (A,), by default 51 values in [1, 2].
        m: (B,), by default 51 values in [0, 0.1].
        f_i: the true class's logit.
        others: S.

    Returns:
        z (A, B), a row for each s.
    """
    if np.ndim(s) != 1 or np.ndim(m) != 1:
        raise ValueError(f"s and m must be lists, not of shapes {np.shape(s)} and {np.shape(m)}")
    return condition(f_i, others, np.asarray(s)[:, None], m)


@dataclass(frozen=True, eq=False)
class Property:
    """The property of section 3.3.1, sample by sample: does z > 0 come with L_I > L?

    Attributes:
        z: at x (n,).
        L: eq. 6 (n,).
        L_I: eq. 7 (n,).
        gain: eq. 14 (n,), equal to L_I - L but for rounding.
        falls: f_i(x) > f_i(x + delta), which the paper takes for granted (n,).
        holds: z > 0 at x (n,), judged by S z, which is of fixed size.
        holds_on_path: z > 0 at `PATH_POINTS` points on the line from f_adv to f (n,).
        larger: L_I > L (n,), judged by `gain`.
    """

    z: Floats
    L: Floats
    L_I: Floats
    gain: Floats
    falls: Bools
    holds: Bools
    holds_on_path: Bools
    larger: Bools

    @property
    def violations(self) -> Bools:
        """Where z > 0 at x and yet L_I <= L (n,), whether `falls` or not."""
        return self.holds & ~self.larger

    def counts(self) -> dict[str, int]:
        """How many samples there are (`n`), and for how many each statement is true."""
        names = ("falls", "holds", "holds_on_path", "larger", "violations")
        return {"n": self.z.size} | {name: int(getattr(self, name).sum()) for name in names}


def check_property(
    f: ArrayLike, f_adv: ArrayLike, labels: ArrayLike, s: float, m: float
) -> Property:
    """Measures the property on a batch: f and f_adv (n, K), labels (n,), one s and one m."""
    f, f_adv = np.asarray(f, np.float64), np.asarray(f_adv, np.float64)
    f_i, log_others = _split(f, labels)
    at_x = slope(f, labels, s, m)
    path = np.linspace(0, 1, PATH_POINTS)
    gain = interval_gain(f, f_adv, labels, s, m)
    return Property(
        # z grows like 1 / S: bounded, lest it overflow where all logits are below -700.
        z=at_x * np.exp(-np.maximum(log_others, -700)),
        L=interval(f, f_adv, labels),
        L_I=inference_interval(f, f_adv, labels, s, m),
        gain=gain,
        falls=f_i > _split(f_adv, labels)[0],
        holds=at_x > 0,
        holds_on_path=np.all([slope((1 - t) * f_adv + t * f, labels, s, m) > 0 for t in path], 0),
        larger=gain > 0,
    )


def _split(f: ArrayLike, i: ArrayLike) -> tuple[Floats, Floats]:
    """f_i (...) and ln S (...) of logits f (..., K)."""
    f, i = np.asarray(f, np.float64), np.asarray(i)
    if f.ndim < 1 or f.shape[-1] < 2:
        raise ValueError(f"f must have shape (..., K) with K >= 2, not {f.shape}")
    if not np.all(np.isfinite(f)):
        raise ValueError("f must be finite")
    if i.shape != f.shape[:-1] or not np.issubdtype(i.dtype, np.integer):
        raise ValueError(f"i must be integers of shape {f.shape[:-1]}, not {i.dtype} {i.shape}")
    if np.any((i < 0) | (i >= f.shape[-1])):
        raise ValueError(f"i must be in [0, {f.shape[-1]})")
    rest = np.where(np.arange(f.shape[-1]) == i[..., None], -np.inf, f)
    top = rest.max(-1)
    log_others = top + np.log(np.exp(rest - top[..., None]).sum(-1))
    return np.take_along_axis(f, i[..., None], -1)[..., 0], log_others


def _s_m(s: ArrayLike, m: ArrayLike) -> tuple[Floats, Floats]:
    s, m = np.asarray(s, np.float64), np.asarray(m, np.float64)
    if not np.all((s >= 1) & (s < np.inf)):
        raise ValueError(f"s must be a finite number >= 1, not {s}")
    if not np.all((m >= 0) & (m < np.inf)):
        raise ValueError(f"m must be a finite number >= 0, not {m}")
    return s, m


def _check_pair(f: ArrayLike, f_adv: ArrayLike) -> None:
    if np.shape(f) != np.shape(f_adv):
        raise ValueError(f"f and f_adv differ in shape: {np.shape(f)} and {np.shape(f_adv)}")


def _slope(f_i: Floats, log_others: Floats, s: Floats, m: Floats) -> Floats:
    u, v = f_i - log_others, s * f_i + m - log_others
    return s * _sigmoid(v) * _sigmoid(-v) - _sigmoid(u) * _sigmoid(-u)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
