"""Square Attack (Andriushchenko et al. 2020): random search in square windows, by scores alone.

After the paper's algorithms 1 to 3 and, where they leave things open, the version in AutoAttack
(Croce & Hein 2020): the margin as loss, the schedule of p stretched over the queries there are.
Windows, signs and orientations are each image's own; public code shares windows over a batch.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.attacks.base import Attack, Batch, Columns, Crafted, Eps, Steps
from trainables.attacks.budgets import BallField, L2RootMeanSquare, Norm, size
from trainables.attacks.surfaces import objective
from trainables.classifier import Classifier
from trainables.registry import component
from trainables.seeding import Draws

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries (section 5.1)
TILES = 5  # a side, at the start in L2
FLOOR = 1e-12  # added to a norm that is divided by, as in public code


@component("square", revision=1)
class Square(Attack):
    """Changes one random square window and keeps what raises the margin max z_j - z_y.

    Linf (algorithm 2): starts from vertical stripes of +-eps; a change sets the window to the
    image +-eps, one sign a channel. L2 (algorithm 3): starts from 5 x 5 tiles, each a pile
    beside its negative; a change takes the norm out of a second window, adds what the ball has
    left, and spends it in the first on what is there plus such a pair of piles.

    There are no gradients. A model that draws at random answers every change with fresh draws,
    and the search never ends early. There a change and what is kept are compared on the SAME
    draws, at two queries: held against an old score, what one lucky pass kept would stand in
    the way of all that follow. Behind random resizing (LeNet-5, L2 1.5) that leaves 78 % of
    passes right after 400 queries in all and 65 % after 1600; an old score leaves 85 and 77 %,
    old means over 4 draws 90 and 87 %.

    Attributes:
        budget: how eps is read; a ball.
        eps: its size, in its unit.
        steps: most queries an image, the start's included; 5000 as in AutoAttack. The schedule
            of p depends on it.
        p_init: share of the image that the first windows cover; 0.8 as in AutoAttack.
        surface: whose margin is raised. The attacker needs only deployed scores; the raw ones,
            which order the classes alike, are what AutoAttack is run on (METHODS 4).
    """

    budget: BallField = L2RootMeanSquare()
    eps: Eps
    steps: Steps = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    surface: Literal["margin_raw", "margin_deployed"] = "margin_raw"

    @property
    def norm(self) -> Norm:
        """The budget's norm."""
        return self.budget.norm

    def radius(self, images: Tensor) -> Tensor:
        """The largest perturbation of each image, (B, 1, 1, 1)."""
        return self.budget.radius(images, self.eps, self.steps)

    def columns(self) -> Columns:
        """Listed by budget, surface, eps and queries."""
        listed = self.extra("budget", "eps", "steps", "surface")
        return Columns(
            budget=self.budget.name,
            norm=self.norm,
            targeted=False,
            surface=self.surface,
            eps=self.eps,
            steps=self.steps,
            extra={**self.budget.parameters(), **listed},
        )

    @torch.no_grad()
    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """Changes every image until it is broken or its queries are spent."""
        start, change = _SEARCHES[self.norm]
        radius, looks = self.radius(batch.images), 1 + classifier.stochastic
        best = start(batch.images, radius, batch.draws.at("start"))
        score, broken = self._look(classifier, best, batch, 0)
        queries = torch.ones_like(batch.labels)
        active = (~broken).nonzero().squeeze(1)
        for query in range(1, self.steps - looks + 1, looks):
            if not len(active):
                break
            part, kept = batch[active], best[active]
            area = share(self.p_init, query - 1, self.steps) * kept[0, 0].numel()
            draws = part.draws.at("change", query)
            changed = change(part.images, kept, radius[active], area, draws)
            found, broken = self._look(classifier, changed, part, query)
            if classifier.stochastic:
                score[active] = self._look(classifier, kept, part, query)[0]
            better = found > score[active]
            best[active[better]], score[active[better]] = changed[better], found[better]
            queries[active] += looks
            active = active[~broken]
        return Crafted(images=best, queries=queries)

    def _look(
        self, classifier: Classifier, images: Tensor, batch: Batch, query: int
    ) -> tuple[Tensor, Tensor]:
        """The margin of each image, and whether it is broken for good, (B,)."""
        draws = batch.draws.at(query)
        value, deployed = objective(self.surface, classifier, images, batch.labels, None, draws)
        wrong = deployed.argmax(dim=1) != batch.labels
        return value, wrong & (not classifier.stochastic)


def share(p_init: float, query: int, queries: int) -> float:
    """The share p of the image that the window of a query covers, as in AutoAttack."""
    halvings = bisect_left(HALVED_AFTER, int(query / queries * 10_000))
    return p_init / float(1 << halvings)


def _stripes(images: Tensor, radius: Tensor, draws: Draws) -> Tensor:
    """Vertical stripes of +-eps, one pixel wide, each channel's its own."""
    batch, channels, _, width = images.shape
    signs = _signs(draws.uniform(channels * width), images).view(batch, channels, 1, width)
    return (images + radius * signs).clamp(0, 1)


def _one_sign(images: Tensor, kept: Tensor, radius: Tensor, area: float, draws: Draws) -> Tensor:
    """A window of so many pixels set to the image +-eps, one sign a channel."""
    channels, height, width = images.shape[1:]
    side = min(max(round(math.sqrt(area)), 1), height, width)
    numbers = draws.uniform(2 + channels)
    window = _window(numbers[:, :2], side, images)
    signs = _signs(numbers[:, 2:], images).unsqueeze(2)
    values = images.flatten(2).gather(2, window) + radius.flatten(1).unsqueeze(2) * signs
    return kept.flatten(2).scatter(2, window, values.clamp(0, 1)).view_as(images)


def _tiles(images: Tensor, radius: Tensor, draws: Draws) -> Tensor:
    """Square tiles of `_piles` side by side, in the middle of the image."""
    batch, channels, height, width = images.shape
    side = max(min(height, width) // TILES, 1)
    rows, columns = height // side, width // side
    tiles = rows * columns
    numbers = draws.uniform(tiles * (1 + channels))
    piles = _piles(side).to(images)[(numbers[:, :tiles] < 0.5).long()]  # (B, tiles, side^2)
    signs = _signs(numbers[:, tiles:], images).view(batch, channels, tiles, 1)
    grid = (signs * piles.unsqueeze(1)).view(batch, channels, rows, columns, side, side)
    grid = grid.transpose(3, 4).reshape(batch, channels, rows * side, columns * side)
    delta = torch.zeros_like(images)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    delta[:, :, top : top + rows * side, left : left + columns * side] = grid
    return _onto_sphere(images, delta, radius)


def _moved_norm(images: Tensor, kept: Tensor, radius: Tensor, area: float, draws: Draws) -> Tensor:
    """What a second window and the ball have left spent in the first, in each channel."""
    channels, height, width = images.shape[1:]
    side = min(max(round(math.sqrt(area)), 3) // 2 * 2 + 1, height, width)  # odd
    numbers = draws.uniform(5 + channels)
    first, second = (_window(numbers[:, k : k + 2], side, images) for k in (0, 2))
    delta = (kept - images).flatten(2)
    spare = (radius.flatten() ** 2 - delta.square().sum(dim=(1, 2))).clamp(min=0) / channels
    old = delta.gather(2, first)
    delta = delta.scatter(2, first, 0.0)
    available = spare.view(-1, 1, 1) + _square(old) + _square(delta.gather(2, second))
    piles = _piles(side).to(images)[(numbers[:, 4] < 0.5).long()].unsqueeze(1)
    new = _unit(old) + _signs(numbers[:, 5:], images).unsqueeze(2) * piles
    delta = delta.scatter(2, second, 0.0).scatter(2, first, _unit(new) * available.sqrt())
    return _onto_sphere(images, delta.view_as(images), radius)


def _onto_sphere(images: Tensor, delta: Tensor, radius: Tensor) -> Tensor:
    return (images + radius * (delta / (size(delta, "l2") + FLOOR))).clamp(0, 1)


@functools.cache
def _piles(side: int) -> Tensor:
    """The tile eta of norm one, as it is and turned by a quarter: (2, side^2) float64.

    Its upper half is a pile that falls off from its middle in square rings (eq. 2: a ring k
    away holds the sum of 1 / (j + 1)^2 over j >= k), its lower half is one of the other sign.
    """
    upper, lower = _pile(side // 2, side), -_pile(side - side // 2, side)
    tile = torch.cat([upper, lower])
    tile /= tile.norm()
    return torch.stack([tile.flatten(), tile.T.flatten()])


def _pile(height: int, width: int) -> Tensor:
    """A pile of norm one, (height, width)."""
    rows, columns = (torch.arange(n) - n // 2 for n in (height, width))
    rings = torch.maximum(rows.abs().unsqueeze(1), columns.abs())
    steps = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** -2
    pile = steps.flip(0).cumsum(0).flip(0)[rings]
    pile /= pile.norm()
    return pile


def _window(corners: Tensor, side: int, images: Tensor) -> Tensor:
    """Indices into the flat channels of a window an image, (B, C, side^2).

    The last place is never drawn, as in all public code (the paper has it). On MNIST, whose rim
    tells nothing, the paper's range is the weaker one: by 1.5 points after 2,500 queries.

    Args:
        corners: where it stands, uniform numbers for rows and columns, (B, 2).
        side: its side in pixels.
        images: (B, C, H, W).
    """
    channels, height, width = images.shape[1:]
    places = torch.tensor([max(height - side, 1), max(width - side, 1)])  # never the last one
    top, left = (corners * places).long().to(images.device).unbind(dim=1)
    along = torch.arange(side, device=images.device)
    rows, columns = top.view(-1, 1, 1) + along.view(1, -1, 1), left.view(-1, 1, 1) + along
    return (rows * width + columns).view(-1, 1, side * side).expand(-1, channels, -1)


def _signs(numbers: Tensor, images: Tensor) -> Tensor:
    """-1 or 1 with equal odds."""
    return torch.where(numbers < 0.5, -1.0, 1.0).to(images)


def _square(values: Tensor) -> Tensor:
    return values.square().sum(dim=2, keepdim=True)


def _unit(values: Tensor) -> Tensor:
    unit: Tensor = values / (values.norm(dim=2, keepdim=True) + FLOOR)
    return unit


Start = Callable[[Tensor, Tensor, Draws], Tensor]
Change = Callable[[Tensor, Tensor, Tensor, float, Draws], Tensor]
_SEARCHES: dict[Norm, tuple[Start, Change]] = {
    "l2": (_tiles, _moved_norm),
    "linf": (_stripes, _one_sign),
}
