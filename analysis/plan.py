"""What a study wants: `plan.json`, as the driver tracked it, in types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from trainables import names

FULL = "full"
CLEAN_ATTACK = "clean"  # what the cell without an attack has in place of one
# DeepFool looks for the nearest class of any kind; "untargeted" would say nothing of it.
UNTARGETED_ONLY = frozenset({"deepfool"})
ATTACK_TITLES = {"pgd": "PGD", "deepfool": "DeepFool", "simba": "SimBA", "autoattack": "AutoAttack"}


class Group(NamedTuple):
    """What is never averaged over: one table section and one surface each."""

    dataset: str
    backbone: str

    def __str__(self) -> str:
        """As run names have it: `lenet5/mnist5k`."""
        return f"{self.backbone}/{self.dataset}"

    @property
    def stem(self) -> str:
        """The same in the names of files."""
        return f"{self.backbone}-{self.dataset}".replace(":", ".")  # of `module:name`


@dataclass(frozen=True)
class Setting:
    """An attack at one size and one length; its cells differ in `surface` alone."""

    attack: str
    budget: str
    targeted: bool
    eps: float
    steps: int
    n: int
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One number that the plan wants of every model: accuracy under one attack, or clean.

    Attributes:
        name: Its metric.
        split: Which images.
        attack: The study's label for the attack, or the check's.
        n: How many images, of most models.
        algorithm: The attack's own name.
        budget: How eps is read.
        norm: Of the threat model; empty without one.
        surface: What is differentiated.
        targeted: Whether it aims at a class.
        eps: Its size.
        steps: Its steps, or queries.
        extra: Parameters that are not at their default.
        check: The check of the audit that it is for; empty for the study's own.
    """

    name: str
    split: str
    attack: str
    n: int
    algorithm: str = ""
    budget: str = ""
    norm: str = ""
    surface: str = ""
    targeted: bool = False
    eps: float = 0.0
    steps: int = 0
    extra: tuple[tuple[str, str], ...] = ()
    check: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing attacks."""
        return self.attack == CLEAN_ATTACK

    @property
    def metric(self) -> str:
        """The metric that holds it; test images without an attack have a short name."""
        return names.CLEAN if self.is_clean and self.split == names.TEST else self.name

    @property
    def is_raw(self) -> bool:
        """Whether the attack works on the raw logits, which no deployed score can mask."""
        return names.is_raw(self.surface)

    @property
    def has_threat_model(self) -> bool:
        """A path bounds what the attacker does, DeepFool's overshoot nothing at all."""
        return bool(self.norm)

    @property
    def setting(self) -> Setting:
        """All but the surface."""
        return Setting(
            self.attack, self.budget, self.targeted, self.eps, self.steps, self.n, self.extra
        )

    @property
    def attack_title(self) -> str:
        """`PGD`, or the study's own label for it."""
        return ATTACK_TITLES.get(self.attack, self.attack)

    @property
    def goal(self) -> str:
        """`un`, `tar`, or nothing for attacks that know no target."""
        if self.is_clean or self.algorithm in UNTARGETED_ONLY:
            return ""
        return "tar" if self.targeted else "un"

    @property
    def size(self) -> str:
        """The attack's size as it is to be read: `ε = 0.04`, or `overshoot 0.02`."""
        eps = names.number(self.eps)
        return f"overshoot {eps}" if self.budget == "overshoot" else f"ε = {eps}"


@dataclass(frozen=True)
class Protocol:
    """How the models of one data set and backbone are evaluated.

    Attributes:
        cells: What every model is to have, in the study file's order.
        headline_label: The headline attack in words.
        headline_metrics: The test cells over which the headline is the per-image worst.
        rebuilds: The paper's tables that it stands beside; empty for those that fit.
        worst_raw: Metric of each attack's per-image worst over its raw surfaces -> its cells.
    """

    cells: tuple[Cell, ...]
    headline_label: str
    headline_metrics: tuple[str, ...]
    rebuilds: tuple[int, ...] = ()
    worst_raw: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, tuple[str, ...]]:
        """Every metric that a model is to have -> the cells that it is made of."""
        return {**{cell.metric: (cell.name,) for cell in self.cells}, **self.worst_raw}

    @property
    def test_attacks(self) -> tuple[Cell, ...]:
        """The study's cells on test images that have an attack; none of the audit's."""
        return tuple(
            cell
            for cell in self.cells
            if cell.split == names.TEST and not cell.is_clean and not cell.check
        )


@dataclass(frozen=True)
class Plan:
    """`plan.json` in types; every list keeps the order of the study file."""

    raw: Mapping[str, Any]

    @property
    def study(self) -> str:
        """The study's name."""
        return str(self.raw["study"])

    @property
    def scale(self) -> str:
        """The overlay that the study was run at; `full` for none."""
        return str(self.raw.get("scale") or FULL)

    @property
    def question(self) -> str:
        """What the study asks, in its author's words; may be empty."""
        return self.raw.get("question") or ""

    @property
    def command(self) -> str:
        """The command that computes whatever is missing."""
        return str(self.raw["command"])

    @property
    def baseline(self) -> str | None:
        """The method that others are compared with."""
        return self.raw.get("baseline")

    @property
    def methods(self) -> tuple[str, ...]:
        """The rows, in order."""
        return tuple(self.raw["methods"])

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """The methods whose hyper-parameters validation chooses."""
        return tuple(self.raw["choose"])

    def protocol(self, group: Group) -> Protocol:
        """How the models of a data set and backbone are evaluated."""
        return self._protocols[str(group)]

    @cached_property
    def _protocols(self) -> dict[str, Protocol]:
        return {place: _protocol(raw) for place, raw in self.raw["protocols"].items()}

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """The models to be trained and attacked."""
        return self.raw["trials"]  # type: ignore[no-any-return]

    @property
    def diagnostics(self) -> Mapping[str, str]:
        """Label -> the diagnostic that it stands for."""
        return self.raw.get("diagnostics") or {}

    @property
    def seeds(self) -> Mapping[str, Sequence[int]]:
        """The seeds of each method."""
        return self.raw["seeds"]  # type: ignore[no-any-return]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions, platform and data digests of the driver."""
        return self.raw.get("provenance") or {}

    @property
    def resources(self) -> Mapping[str, float]:
        """What a trial takes: `cpu`, cores."""
        return self.raw.get("resources") or {"cpu": 1}

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures of formulas that it draws."""
        return tuple(self.raw.get("figures") or ())

    @cached_property
    def params(self) -> Mapping[str, Mapping[str, str]]:
        """Each trial's parameters, by its id."""
        return {trial["trial_id"]: trial.get("params") or {} for trial in self.trials}

    def axes(self, method: str) -> Mapping[str, Sequence[float]]:
        """The swept numbers of a method and their values; empty if nothing is swept."""
        return self.raw["axes"].get(method) or {}

    def arms(self, group: Group, method: str) -> dict[str, dict[str, float]]:
        """Each configuration of a method with its place on the axes."""
        return {
            trial["arm"]: {axis: trial["axes"][axis] for axis in self.axes(method)}
            for trial in self.trials
            if method in trial["methods"]
            and (trial["dataset"], trial["backbone"]) == (group.dataset, group.backbone)
        }

    def controls(self, method: str) -> tuple[str, ...]:
        """The control arms of a method."""
        return tuple((self.raw.get("controls") or {}).get(method, ()))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The pairs of data set and backbone, in the order of the trials."""
        pairs = (Group(trial["dataset"], trial["backbone"]) for trial in self.trials)
        return tuple(dict.fromkeys(pairs))


def axis_label(axis: str) -> str:
    """`loss.s` -> `s`: what the paper calls it."""
    return axis.rpartition(".")[2]


def worst_over_raw(cells: Sequence[Cell]) -> dict[Setting, tuple[Cell, ...]]:
    """The raw-surface cells of each setting, which its worst case is taken over."""
    settings: dict[Setting, list[Cell]] = {}
    for cell in cells:
        if cell.is_raw:
            settings.setdefault(cell.setting, []).append(cell)
    return {setting: tuple(raw) for setting, raw in settings.items()}


def _protocol(raw: Mapping[str, Any]) -> Protocol:
    headline = raw["headline"]
    cells = tuple(_cell(name, cell) for name, cell in raw["cells"].items())
    leading, rebuilds = tuple(headline[names.TEST]), tuple(raw.get("rebuilds") or ())
    worst_raw = {metric: tuple(of) for metric, of in raw["worst_raw"].items()}
    return Protocol(cells, str(headline["label"]), leading, rebuilds, worst_raw)


def _cell(name: str, raw: Mapping[str, Any]) -> Cell:
    extra = tuple(sorted((key, str(value)) for key, value in (raw.get("extra") or {}).items()))
    return Cell(
        name=name,
        split=raw["split"],
        attack=raw["attack"],
        n=int(raw["n"]),
        algorithm=raw.get("algorithm") or "",
        budget=raw.get("budget") or "",
        norm=raw.get("norm") or "",
        surface=raw.get("surface") or "",
        targeted=bool(raw.get("targeted")),
        eps=float(raw.get("eps") or 0.0),
        steps=int(raw.get("steps") or 0),
        extra=extra,
        check=raw.get("check") or "",
    )
