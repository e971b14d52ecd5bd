"""Models under audit, whose every check passes until something is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.audit import Audit, judge
from analysis.checks import Check
from analysis.plan import Cell
from trainables import names

N = 200
SURFACES = ("ce_deployed", "ce_raw", "margin_raw")


def cell(surface: str, *, check: str = "", **more: Any) -> Cell:
    """A cell of PGD in the headline's setting, or one of the audit."""
    given = {"norm": "l2", "budget": "l2_abs", "eps": 1.0, "steps": 20, "algorithm": "pgd"} | more
    label, split = check or "pgd", given.pop("split", names.TEST)
    name = names.cell_name(
        prefix=names.AUDIT if check else f"{names.CELL}{split}/",
        attack=label,
        targeted=given.get("targeted", False),
        surface=surface,
        extra=dict(given.get("extra", ())),
        **{key: given[key] for key in ("budget", "eps", "steps")},
    )
    return Cell(name, split, label, N, surface=surface, check=check, **given)


CLEAN = Cell(names.clean_name(names.TEST), names.TEST, "clean", N)
OWN = {surface: cell(surface) for surface in SURFACES}
HELD = (("alpha_for", "50"),)
ONCE = {
    "autoattack": cell("raw", check="autoattack", algorithm="autoattack"),
    "square": cell("margin_raw", check="square", algorithm="square", steps=5000),
    "simba": cell("none", check="simba", algorithm="simba", steps=300),
    "transfer": cell("margin_raw", check="transfer", algorithm="transfer"),
    "targets": cell("margin_raw", check="targets", steps=50, extra=(("rivals", "9"),)),
    "noise": cell("none", check="noise", algorithm="gaussian"),
}


def each(surface: str) -> dict[str, Cell]:
    """The audit's cells of one surface."""
    several = (*HELD, ("random_start", "True"), ("restarts", "5"))
    found = {
        "single": cell(surface, check="single", steps=1),
        "unbounded": cell(surface, check="unbounded", eps=10 / 28, budget="l2_rms", steps=100),
        "half": cell(surface, check="eps", eps=0.5),
        "double": cell(surface, check="eps", eps=2.0),
        "eot": cell(surface, check="eot", extra=(("eot", "40"),)),
        "short": cell(surface, check="steps", steps=50, extra=HELD),
        "long": cell(surface, check="steps", steps=200, extra=HELD),
        "restarts": cell(surface, check="restarts", steps=50, extra=several),
    }
    if surface.startswith("ce"):
        found["rescale"] = cell(surface, check="rescale", extra=(("rescale", "unit"),))
    return found


EACH = {surface: each(surface) for surface in SURFACES}


def outcome(kept: float, *, n: int = N, passes: int = 1, gradient: float = 1.0) -> dict[str, Any]:
    """The first `kept` images are right under attack, all but the last 10 of `N` before it."""
    index = np.arange(n)
    before = np.where(index < N - 10, passes, 0)
    after = np.clip(np.round((kept - index) * passes), 0, passes).astype(int)
    return {
        "correct_before": before,
        "correct_after": np.minimum(after, before),
        "passes": np.full(n, passes),
        "gradient": np.where(before > 0, gradient, -1.0),
        "labels": index % 10,
    }


# Images left by each attack on a model whose headline can be believed.
HEADLINE = 100
LEFT_ONCE = {
    "autoattack": 98, "square": 150, "simba": 170, "transfer": 160, "targets": 99, "noise": 180,
}  # fmt: skip
LEFT_EACH = {
    "single": 120, "unbounded": 0, "half": 150, "double": 40, "eot": HEADLINE, "short": 100,
    "long": 99, "restarts": 99, "rescale": 99,
}  # fmt: skip
LEFT = {"ce_deployed": 102, "ce_raw": 102, "margin_raw": HEADLINE}


@dataclass
class Case:
    """A model under audit; everything passes until something is changed."""

    cells: list[Cell] = field(
        default_factory=lambda: [
            CLEAN,
            *OWN.values(),
            *ONCE.values(),
            *(found for cells in EACH.values() for found in cells.values()),
        ]
    )
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    headline: tuple[str, ...] = (OWN["ce_raw"].name, OWN["margin_raw"].name)
    passes: int = 1

    def __post_init__(self) -> None:
        self.set(CLEAN, N)
        for surface, own in OWN.items():
            self.set(own, LEFT[surface])
            for name, found in EACH[surface].items():
                self.set(found, LEFT_EACH[name])
        for name, found in ONCE.items():
            self.set(found, LEFT_ONCE[name])

    def set(self, which: Cell, kept: float, **more: Any) -> Case:
        self.outcomes[which.name] = outcome(kept, **{"passes": self.passes, **more})
        return self

    def audit(self) -> Audit:
        return judge(self.cells, self.headline, self.outcomes)

    def check(self, name: str, surface: str = "") -> Check:
        metric = OWN[surface].name if surface else ""
        found = [c for c in self.audit().checks if (c.name, c.about) == (name, metric)]
        assert len(found) == 1
        return found[0]

    def verdict(self, name: str, surface: str = "") -> str:
        return self.check(name, surface).verdict
