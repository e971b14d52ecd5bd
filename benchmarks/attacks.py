"""Our attacks beside public ones on the same model and images, one thread each, in one run.

python benchmarks/attacks.py [--images 256] [--only NAME …] [--json FILE]

Prints a table: seconds of processor time, accuracy left and memory on top of the model's, ours
against theirs. Theirs run on the model in torch's usual layout, and once more in ours
(channels_last, about 1.6 times as fast on a CPU): the ratio that is held to something is the first.
Exit status 1 where a ratio stays below what it is held to, or where outcomes differ.

torchattacks' DeepFool ends ON the boundary, where rounding decides what class an image has: of its
own results another batch size calls others robust. So where an image stands is compared: over the
boundary, on it (logits within 1e-4 of each other) or short of it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trainables import registry
from trainables.attacks.base import Attack, craft
from trainables.attacks.deepfool import DeepFool
from trainables.attacks.pgd import PGD
from trainables.attacks.simba import SimBA
from trainables.classifier import Classifier
from trainables.config import ModelConfig, Training
from trainables.datasets.base import load_splits
from trainables.evaluation import accuracy
from trainables.execution import prepare
from trainables.seeding import wrong_classes
from trainables.training import Trainer

ON = 1e-4  # difference of logits that counts as on the boundary
KAPPA = 6.0  # of the path that comes nearest to the paper's SCE row (METHODS 3)
QUERIES = 300


@dataclass(frozen=True)
class Task:
    """What everybody works on."""

    model: Classifier
    images: Tensor
    labels: Tensor

    @property
    def targets(self) -> Tensor:
        return wrong_classes(self.labels, torch.arange(len(self.labels)), 10, 0)


Attempt = Callable[[Task], list[Tensor]]


@dataclass(frozen=True)
class Race:
    """Two ways to the same numbers.

    Attributes:
        ours, theirs: give adversarial images, column by column.
        least: what the ratio of seconds is held to.
        agree: the share of images that must stand on the same side of the boundary; None where
            ours must only be as strong.
    """

    ours: Attempt
    theirs: Attempt
    least: float
    agree: float | None = None


@dataclass(frozen=True)
class Run:
    """How one of them did."""

    seconds: float
    megabytes: float
    left: list[float]


def ours(attacks: Sequence[Attack]) -> Attempt:
    """Our attacks, those that one run answers together."""

    def run(task: Task) -> list[Tensor]:
        groups: dict[Attack, list[Attack]] = {}
        for attack in attacks:
            groups.setdefault(attack.alike(), []).append(attack)
        made: dict[Attack, Tensor] = {}
        for peers in groups.values():
            outcomes = craft(peers, task.model, task.images, task.labels)
            made |= {peer: images for peer, (images, _) in zip(peers, outcomes, strict=True)}
        return [made[attack] for attack in attacks]

    return run


@torch.no_grad()
def standing(task: Task, images: Tensor) -> tuple[Tensor, Tensor]:
    """Which images are right, before and under attack, and on which side they stand: -1, 0, 1."""
    logits, labels = task.model(images), task.labels.unsqueeze(1)
    right = task.model(task.images).argmax(dim=1) == task.labels
    others = logits.scatter(1, labels, -torch.inf).amax(dim=1)
    margin = logits.gather(1, labels).squeeze(1) - others
    side = torch.where(margin.abs() <= ON, 0, margin.sign())
    return right & (logits.argmax(dim=1) == task.labels), torch.where(right, side, -1)


def torchattacks_deepfool(task: Task) -> list[Tensor]:
    import torchattacks

    attack = torchattacks.DeepFool(task.model, steps=50, overshoot=0.02)
    return [attack(task.images, task.labels)]


def foolbox_deepfool(task: Task) -> list[Tensor]:
    import foolbox

    model = foolbox.PyTorchModel(task.model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)
    return [attack(model, task.images, task.labels, epsilons=None)[1]]


def simba_loop(task: Task) -> list[Tensor]:
    """Guo et al.'s algorithm, an image at a time, in pixels."""
    pairs = zip(task.images, task.labels, strict=True)
    return [
        torch.cat([_simba_image(task.model, image[None], int(label)) for image, label in pairs])
    ]


@torch.no_grad()
def _simba_image(model: Classifier, image: Tensor, label: int) -> Tensor:
    current, queries = image.clone(), 1
    logits = model(current)
    best = logits.double().log_softmax(dim=1)[0, label]
    for pixel in torch.randperm(image.numel()):
        if int(logits.argmax()) != label or queries >= QUERIES:
            break
        for sign in (-1, 1):
            if queries >= QUERIES:
                break
            moved = current.clone()
            moved.view(-1)[pixel] += sign * 0.2
            moved.clamp_(0, 1)
            queries += 1
            seen = model(moved)
            value = seen.double().log_softmax(dim=1)[0, label]
            if value < best:
                current, best, logits = moved, value, seen
                break
    return current


def torchattacks_pgd(columns: Sequence[PGD]) -> Attempt:
    """One run of torchattacks for each column."""

    def run(task: Task) -> list[Tensor]:
        import torchattacks

        found = []
        for column in columns:
            path = not column.budget.threat
            eps = 1e6 if path else column.eps
            alpha = KAPPA * column.eps if path else 2.5 * column.eps / column.steps
            attack = torchattacks.PGDL2(
                task.model, eps=eps, alpha=alpha, steps=column.steps, random_start=False
            )
            if column.targeted:
                attack.set_mode_targeted_by_function(lambda images, labels: task.targets)
            found.append(attack(task.images, task.labels))
        return found

    return run


def columns(budget: Any, eps: Sequence[float]) -> list[PGD]:
    """The PGD columns of a table of the paper: eps x steps x direction."""
    return [
        PGD(budget=budget, eps=size, steps=steps, targeted=targeted, surface="ce_raw")
        for size in eps
        for targeted in (False, True)
        for steps in (10, 50)
    ]


PATH = columns({"name": "path_l2", "kappa": KAPPA}, (0.02, 0.04))
SMALL, LARGE = (columns("l2_abs", (eps,)) for eps in (1.0, 2.0))
RACES = {
    "deepfool per_step / torchattacks": Race(
        ours([DeepFool(overshoot_rule="per_step")]), torchattacks_deepfool, least=10, agree=0.99
    ),
    "deepfool total / foolbox": Race(ours([DeepFool()]), foolbox_deepfool, least=1),
    "simba / one image at a time": Race(ours([SimBA(eps=0.2, steps=QUERIES)]), simba_loop, least=7),
    "8 pgd columns, path / torchattacks": Race(ours(PATH), torchattacks_pgd(PATH), least=3),
    "4 pgd columns, L2 1 / torchattacks": Race(ours(SMALL), torchattacks_pgd(SMALL), least=1),
    "4 pgd columns, L2 2 / torchattacks": Race(ours(LARGE), torchattacks_pgd(LARGE), least=1.5),
}


def measured(run: Attempt, task: Task) -> tuple[Run, Tensor]:
    """Runs it in a process of its own, so that memory is its own too; and where images stand."""
    here, there = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        warnings.simplefilter("ignore")
        first = Task(task.model, task.images[:2], task.labels[:2])
        with contextlib.redirect_stdout(io.StringIO()):
            run(first)  # imports and first calls are nobody's cost
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.redirect_stdout(io.StringIO()):  # torchattacks tells of every change
            started = time.process_time()
            made = run(task)
            seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        right, sides = zip(*[standing(task, images) for images in made], strict=True)
        left = [float(column.double().mean()) for column in right]
        there.send((Run(seconds, (peak - before) / 1024, left), torch.stack(sides).tolist()))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    there.close()
    run_of, sides = here.recv()
    process.join()
    return run_of, torch.tensor(sides)


def trained(images: int) -> Task:
    """SCE on mnist5k, and the first test images."""
    execution = prepare(threads=1, gpu=0, channels_last=True, data=".")
    parts = {"dataset": "mnist5k", "backbone": "lenet5", "loss": "sce", "regime": "standard"}
    chosen: dict[str, Any] = {**parts, "transform": "none"}
    built: dict[str, Any] = {kind: registry.build(kind, spec) for kind, spec in chosen.items()}
    config = ModelConfig(**built, training=Training(), seed=0)
    splits = load_splits(config.dataset, execution)
    trainer = Trainer(config, splits, execution)
    while not trainer.done:
        trainer.epoch()
    model = trainer.classifier.eval().requires_grad_(False)
    print(f"lenet5 on mnist5k with sce: {accuracy(model, splits.test):.3f}; {execution.record()}\n")
    part = splits.test.first(images)
    return Task(model, part.images, part.labels)


def race(name: str, task: Task) -> tuple[dict[str, Any], bool]:
    """One row of the table, and whether it holds."""
    rules = RACES[name]
    usual = Task(copy.deepcopy(task.model), task.images, task.labels)
    usual.model.to(memory_format=torch.contiguous_format)
    mine, sides = measured(rules.ours, task)
    other, others = measured(rules.theirs, usual)
    ratio = other.seconds / mine.seconds
    alike = measured(rules.theirs, task)[0].seconds / mine.seconds
    same = sides.eq(others).double().mean()
    row = {"ours": asdict(mine), "theirs": asdict(other), "ratio": ratio}
    row |= {"ratio_in_our_layout": alike, "same": float(same)}
    strong = all(a <= b + 1 / len(task.labels) for a, b in zip(mine.left, other.left, strict=True))
    agree = float(same) >= rules.agree if rules.agree is not None else strong
    holds = ratio >= rules.least and agree
    seconds = f"{mine.seconds:.2f} | {other.seconds:.2f}"
    ratios = f"{ratio:.1f} | {rules.least:g} | {alike:.1f}"
    memory = f"{mine.megabytes:.0f} / {other.megabytes:.0f}"
    left = " ".join(f"{100 * value:.1f}" for value in mine.left)
    theirs = " ".join(f"{100 * value:.1f}" for value in other.left)
    cells = [name, seconds, ratios, f"{100 * float(same):.1f}", left, theirs, memory]
    print(f"| {' | '.join(cells)} | {'yes' if holds else 'NO'} |", flush=True)
    return row, holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=RACES, default=list(RACES))
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = trained(options.images)
    print(
        "| ours / theirs | ours s | theirs s | ratio | at least | in our layout | same % "
        "| left %, ours | left %, theirs | memory MB | holds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = {name: race(name, task) for name in options.only}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({name: row for name, (row, _) in rows.items()}, file, indent=1)
    return 0 if all(holds for _, holds in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
