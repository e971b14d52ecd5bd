"""What an attack is, and everything about it that must never be wrong."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, cast, final

import torch
from pydantic import Field, PlainValidator
from torch import Tensor

from trainables import registry
from trainables.attacks.budgets import Norm, size
from trainables.attacks.surfaces import settled
from trainables.classifier import Classifier, frozen
from trainables.errors import BrokenInvariant
from trainables.losses.base import Loss
from trainables.registry import Component
from trainables.seeding import Draws, wrong_classes

ROUNDING = 1e-5  # the share of eps by which float32 may overshoot a budget
PASSES = 10  # over which a model that draws at random is scored (METHODS 3)
SLACK = 1e-7  # what float32 rounds pixels of about 1 by, where eps is smaller than 0.01
UNBROKEN = -1  # in `broken_by`
NO_GRADIENT = -1.0  # in `gradient`

Eps = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images that an attack works on.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        labels: true classes, (B,).
        targets: classes to reach, (B,), or None where the attack has none.
        logits: deployed ones of the images, a mean over passes, (B, K).
        draws: the adversary's own random numbers for these images.
        models: other trained models by id, for attacks that need them.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    logits: Tensor
    draws: Draws
    models: Mapping[str, Classifier] = field(default_factory=dict)

    def __getitem__(self, chosen: Tensor) -> Batch:
        """Some of the images, with all that belongs to them."""
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            targets=None if self.targets is None else self.targets[chosen],
            logits=self.logits[chosen],
            draws=self.draws[chosen],
        )

    def rivals(self) -> Tensor:
        """The wrong classes, likeliest first: (B, K - 1)."""
        others = self.logits.scatter(1, self.labels.unsqueeze(1), -torch.inf)
        return others.argsort(dim=1, descending=True, stable=True)[:, :-1]


@dataclass(frozen=True, kw_only=True)
class Crafted:
    """What an attack hands over, judged by the base and not by itself; on the images' device.

    Attributes:
        images: adversarial images, (B, C, H, W).
        queries: forward passes spent on each, (B,).
        gradient: smallest L2 norm of the gradients that were followed, (B,) float64, 0 where
            one was not finite; `NO_GRADIENT` where none was, everywhere by default.
        stage: which of the attack's `stages` made the image, (B,); the first by default.
    """

    images: Tensor
    queries: Tensor
    gradient: Tensor | None = None
    stage: Tensor | None = None

    def clone(self) -> Crafted:
        """The same as it is now, whatever becomes of the tensors."""
        held = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.clone() for name, value in held.items()})


@dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What an attack did to each image; all tensors (B,) on the CPU unless said otherwise.

    Attributes:
        correct_before: passes (0 .. `passes`) that classified the clean image rightly.
        correct_after: those of them that classify it rightly under attack too.
        l2, linf: norms of the perturbation, 0 for images that were not attacked.
        queries: forward passes spent on the image.
        gradient: smallest norm of the gradients that were followed, as in `Crafted`.
        targets: class aimed at, -1 without one.
        hit: passes that reached the target.
        broken_by: which of `stages` left no pass right, `UNBROKEN` where none did.
        by_pass: (B, passes), 1 where the pass is right before and under attack.
        stages: what the attack is made of, by name.
        passes: passes an image, 1 for a deterministic model. Before and under attack a pass
            draws the same, so that the two differ by the perturbation alone.
    """

    correct_before: Tensor
    correct_after: Tensor
    l2: Tensor
    linf: Tensor
    queries: Tensor
    gradient: Tensor
    targets: Tensor
    hit: Tensor
    broken_by: Tensor
    by_pass: Tensor
    stages: tuple[str, ...]
    passes: int = 1


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What every attack is listed by; `extra` holds its parameters not at their default.

    Attributes:
        budget: how eps is read.
        norm: of the threat model, None for an attack without one (a path, DeepFool's overshoot).
        targeted: whether it aims at a class.
        surface: what it differentiates; `none` for black-box attacks.
        eps: its size in the budget's unit.
        steps: its steps, or queries.
    """

    budget: str
    norm: Norm | None
    targeted: bool
    surface: str
    eps: float
    steps: int
    extra: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """Another model of the study, as the planner knows it."""

    id: str
    loss: Loss
    stochastic: bool


class Attack(Component):
    """Base of all attacks: subclasses write `perturb`, calling one owns the invariants."""

    kind: ClassVar[str] = "attack"

    @property
    def targeted(self) -> bool:
        """Whether it aims at a class."""
        return False

    @property
    def norm(self) -> Norm | None:
        """The norm its perturbation is bounded in, None if in none."""
        return None

    @property
    def stages(self) -> tuple[str, ...]:
        """What it is made of, in the order of `Crafted.stage`."""
        return (self.name,)

    @property
    def parts(self) -> tuple[Attack, ...]:
        """The attacks that it costs as much as: itself unless it runs others, one after another."""
        return (self,)

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the other trained models it needs: its cells run when those exist."""
        return ()

    def radius(self, images: Tensor) -> Tensor | None:
        """The largest perturbation allowed around each image, (B, 1, 1, 1), in `norm`."""
        return None

    @abstractmethod
    def columns(self) -> Columns | None:
        """How it stands in a cell's name, None for the clean cell."""

    def settled(self, loss: Loss, *, stochastic: bool) -> Attack:
        """The same attack in the form that is planned for models of a loss: equal ones once.

        Args:
            loss: names its equal surfaces.
            stochastic: whether the models draw at random: others need no mean over draws.
        """
        own = vars(self)
        changes: dict[str, Any] = {}
        if "surface" in own:
            changes["surface"] = settled(own["surface"], loss)
        if "eot" in own and not stochastic:
            changes["eot"] = 1
        return _changed(self, tuple(changes.items()))

    def aimed(self, find: Callable[[str], SourceModel | None]) -> Attack | None:
        """With ids of models in place of the methods' names in `sources`.

        Args:
            find: the model of a method that goes with the one under attack, None without one.

        Returns:
            None where a model is missing: the attack does not apply.
        """
        return self

    def alike(self) -> Attack:
        """What attacks that one run can answer have in common: theirs are equal."""
        return self

    def aims(self, logits: Tensor, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """Where a targeted attack aims: uniform over the wrong classes, fixed for each image.

        Args:
            logits: deployed ones of the clean images, a mean over passes, (B, K).
            labels: true classes, (B,).
            indices: each image's place in its split's order, (B,).
            seed: the selection's seed.
        """
        return wrong_classes(labels, indices, logits.shape[1], seed)

    def extra(self, *listed: str) -> dict[str, object]:
        """The parameters that are not at their default, less those `listed` elsewhere."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {
            field.name: value
            for field in fields
            if field.name not in listed and (value := getattr(self, field.name)) != field.default
        }

    @abstractmethod
    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """Attacks images that are all classified rightly, at least by one pass."""

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """What each of several attacks with equal `alike` makes, in one run where it can be."""
        return [peer.perturb(classifier, batch) for peer in peers]

    @final
    def __call__(
        self, classifier: Classifier, images: Tensor, labels: Tensor, **options: Any
    ) -> AttackOutcome:
        """Attacks the images that the classifier gets right and judges the result; see `craft`."""
        return self.craft(classifier, images, labels, **options)[1]

    @final
    def craft(
        self, classifier: Classifier, images: Tensor, labels: Tensor, **options: Any
    ) -> tuple[Tensor, AttackOutcome]:
        """The adversarial images too, (B, C, H, W), beside what calling the attack gives."""
        return craft([self], classifier, images, labels, **options)[0]

    def check(self, images: Tensor, adversarial: Tensor) -> None:
        """Raises BrokenInvariant where a perturbation is none or leaves the budget."""
        if not bool(adversarial.isfinite().all()):
            raise BrokenInvariant(f"{self} made an image with pixels that are no numbers")
        radius = self.radius(images)
        if radius is None or self.norm is None:
            return
        excess = size(adversarial - images, self.norm) - radius * (1 + ROUNDING)
        if bool(excess.max() > SLACK):
            raise BrokenInvariant(f"{self} left its budget by {float(excess.max()):.3g}")


AttackField = Annotated[Attack, PlainValidator(registry.reader("attack"))]


class Stepwise(Attack):
    """An attack whose first n steps are the same however many follow: one run answers all n."""

    steps: Steps

    @abstractmethod
    def iterates(self, classifier: Classifier, batch: Batch) -> Iterator[Crafted]:
        """Where it stands after 0, 1, 2 … steps; ends early when nothing is left to do.

        The same tensors may be yielded again and again, changed in place.
        """

    def alike(self) -> Attack:
        """All but the number of steps."""
        return cast(Attack, replace(cast(Any, self), steps=1))

    def perturb(self, classifier: Classifier, batch: Batch) -> Crafted:
        """Where it stands after `steps` steps."""
        return self.perturb_each([self], classifier, batch)[0]

    def perturb_each(
        self, peers: Sequence[Self], classifier: Classifier, batch: Batch
    ) -> list[Crafted]:
        """Stops at every peer's number of steps on the way to the largest."""
        wanted, found = {peer.steps for peer in peers}, dict[int, Crafted]()
        longest = max(peers, key=lambda peer: peer.steps)
        for number, state in enumerate(longest.iterates(classifier, batch)):
            if number in wanted:
                found[number] = state.clone()
            if number == longest.steps:
                break
        return [found.get(peer.steps, state) for peer in peers]


def craft(
    attacks: Sequence[Attack],
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    indices: Tensor | None = None,
    seed: int = 0,
    models: Mapping[str, Classifier] | None = None,
) -> list[tuple[Tensor, AttackOutcome]]:
    """Attacks the images that the classifier gets right, and judges what comes of it.

    Success is judged by running the classifier on the clipped result, with draws of its own
    that the adversary does not know. The mode of the classifier and its parameters' gradients
    are left as they were.

    Args:
        attacks: one, or several with equal `alike`, which one run answers.
        classifier: the model, on the images' device.
        images: (B, C, H, W) in [0, 1].
        labels: true classes, (B,).
        indices: place of each image in its split's order; counted from 0 by default.
        seed: of targets and other draws.
        models: other trained models by id.

    Returns:
        The adversarial images and the outcome of each attack.

    Raises:
        ValueError: images outside [0, 1].
        BrokenInvariant: a perturbation left its budget or is not finite, a bug of the attack's.
    """
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is outside too
        raise ValueError("expected images in [0, 1]")
    first, models = attacks[0], models or {}
    indices = torch.arange(len(images)) if indices is None else indices
    draws = Draws((seed,), indices)
    with contextlib.ExitStack() as stack:
        for model in (classifier, *models.values()):
            stack.enter_context(frozen(model, model))
        clean = _passes(classifier, images, draws)
        before = clean.argmax(dim=2) == labels
        logits = clean.mean(dim=0)
        targets = first.aims(logits, labels, indices, seed) if first.targeted else None
        alive = before.any(dim=0).nonzero().squeeze(1)
        everything = Batch(
            images=images,
            labels=labels,
            targets=targets,
            logits=logits,
            draws=draws.at("attack", first.name),
            models=models,
        )
        made = [_nothing(images) for _ in attacks]
        if len(alive):
            crafted = first.perturb_each(attacks, classifier, everything[alive])
            made = [_spread(images, alive, result) for result in crafted]
            for attack, result in zip(attacks, made, strict=True):
                attack.check(images, result.images)
        return [
            (result.images, _judge(attack, classifier, everything, before, result, draws))
            for attack, result in zip(attacks, made, strict=True)
        ]


def within(attack: Attack, made: Crafted, images: Tensor) -> Crafted:
    """The same with clean images in place of those that left the attack's budget."""
    radius, norm = attack.radius(images), attack.norm
    if radius is None or norm is None:
        return made
    fits = size(made.images - images, norm) <= radius
    return replace(made, images=torch.where(fits, made.images, images))


def in_turn(
    classifier: Classifier, batch: Batch, attempts: Iterable[Callable[[Batch], Crafted]]
) -> Crafted:
    """Tries one attempt after another, each on the images that none has broken yet.

    Each has draws of its own. Of a model that draws at random an image is broken when none of
    `PASSES` passes, drawn by the adversary, is right; else the attempt that leaves fewest counts.
    """
    best = _nothing(batch.images)
    fewest = torch.full_like(batch.labels, PASSES + 1)
    for number, attempt in enumerate(attempts):
        active = (fewest > 0).nonzero().squeeze(1)
        if not len(active):
            break
        part = replace(batch, draws=batch.draws.at(number))[active]
        made = attempt(part)
        made = replace(made, images=made.images.detach().clamp(0, 1))
        logits = _passes(classifier, made.images, part.draws)
        right = (logits.argmax(dim=2) == part.labels).sum(dim=0)
        best.queries[active] += made.queries + len(logits)
        _keep_smaller(best, active, made.gradient)
        better = right < fewest[active]
        chosen = active[better]
        fewest[chosen] = right[better]
        best.images[chosen] = made.images[better]
        assert best.stage is not None
        best.stage[chosen] = number
    return best


def _nothing(images: Tensor) -> Crafted:
    """The images as they are, at no query."""
    zeros = torch.zeros(len(images), dtype=torch.long, device=images.device)
    gradient = torch.full_like(zeros, NO_GRADIENT, dtype=torch.float64)
    return Crafted(
        images=images.clone(), queries=zeros.clone(), gradient=gradient, stage=zeros.clone()
    )


def _keep_smaller(best: Crafted, active: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    assert best.gradient is not None
    known = best.gradient[active]
    smaller = torch.minimum(known, gradient)  # NO_GRADIENT is the smallest of all
    taken = torch.where(gradient == NO_GRADIENT, known, smaller)
    best.gradient[active] = torch.where(known == NO_GRADIENT, gradient, taken)


def _spread(images: Tensor, alive: Tensor, crafted: Crafted) -> Crafted:
    """What was made of the images that are attacked, among all of them."""
    whole = _nothing(images)
    whole.images[alive] = crafted.images.detach().clamp(0, 1)
    for name in ("queries", "gradient", "stage"):
        found = getattr(crafted, name)
        if found is not None:
            getattr(whole, name)[alive] = found.to(alive.device)
    return whole


@torch.no_grad()
def _passes(classifier: Classifier, images: Tensor, draws: Draws) -> Tensor:
    """The deployed logits of each pass, (passes, B, K)."""
    passes = range(PASSES if classifier.stochastic else 1)
    return torch.stack([classifier(images, draws.at("judge", number)) for number in passes])


def _judge(
    attack: Attack,
    classifier: Classifier,
    batch: Batch,
    before: Tensor,
    made: Crafted,
    draws: Draws,
) -> AttackOutcome:
    """`before`: which passes were right on the clean image, (passes, B)."""
    after = _passes(classifier, made.images, draws).argmax(dim=2)
    delta, labels = made.images - batch.images, batch.labels
    targets = torch.full_like(labels, -1) if batch.targets is None else batch.targets
    right = before & (after == labels)
    assert made.gradient is not None and made.stage is not None
    broken = before.any(dim=0) & ~right.any(dim=0)
    return AttackOutcome(
        correct_before=before.sum(dim=0).cpu(),
        correct_after=right.sum(dim=0).cpu(),
        l2=size(delta, "l2").flatten().cpu(),
        linf=size(delta, "linf").flatten().cpu(),
        queries=made.queries.cpu(),
        gradient=made.gradient.cpu(),
        targets=targets.cpu(),
        hit=(after == targets).sum(dim=0).cpu(),
        broken_by=torch.where(broken, made.stage, UNBROKEN).cpu(),
        by_pass=right.T.to(torch.uint8).cpu().contiguous(),
        stages=attack.stages,
        passes=len(before),
    )


@lru_cache(maxsize=4096)
def _changed(attack: Attack, changes: tuple[tuple[str, Any], ...]) -> Attack:
    """A copy, made and validated once for all of a study's models."""
    return cast(Attack, replace(cast(Any, attack), **dict(changes)))
