"""Which of a study's models and cells are the paper's rows and columns."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.plan import Cell, Group
from analysis.published import Column

# What stands for the paper's data set where a study is a small one.
STANDS_FOR = {"mnist5k": "mnist"}
_OF_LOSS = {
    "sce": "SCE",
    "center": "Center",
    "lgm": "L-GM",
    "arcface": "ArcFace",
    "mmc": "MMC",
    "label_smoothing": "LS",
}
# Section 4.1: "we set s = 1 and m = 0.1"; the logits' normalisation is METHODS 1's reading.
_ISCE = {"loss.s": "1", "loss.m": "0.1", "loss.normalize": "logits"}

_CONTROLS = {"norm-sce": {"loss.m": "0"}, "isce-raw": {"loss.normalize": "none"}}
ROWS = ("SCE", "Center", "L-GM", "ArcFace", "MMC", "I-SCE", "Random", "LS", "AT")


def row_of(params: Mapping[str, str]) -> str | None:
    """The paper's name for a configuration; None where its tables have no such row.

    Args:
        params: A trial's parameters as they are tracked: `loss`, `loss.s`, `regime` …
    """
    loss, regime = params.get("loss", ""), params.get("regime", "standard")
    if _is_given(params):
        return None
    if params.get("transform") == "random_resize_pad":
        return "Random" if (loss, regime) == ("sce", "standard") else None
    if regime == "adversarial":
        return "AT" if loss == "sce" else None
    if loss == "isce":
        return "I-SCE" if all(params.get(key) == value for key, value in _ISCE.items()) else None
    return _OF_LOSS.get(loss)


def control_of(params: Mapping[str, str]) -> str | None:
    """Which of the control arms that every I-SCE study needs a configuration is (METHODS 1).

    Returns:
        `norm-sce` (normalised, no margin), `isce-raw` (the paper's s and m, not normalised), or
        None.
    """
    plain = (params.get("regime", "standard"), params.get("transform", "none"))
    if _is_given(params) or params.get("loss") != "isce" or plain != ("standard", "none"):
        return None
    known = {key: params.get(key) for key in _ISCE}
    for name, changed in _CONTROLS.items():
        if known == {**_ISCE, **changed}:
            return name
    return None


def _is_given(params: Mapping[str, str]) -> bool:
    """Whether it is a checkpoint: how it was trained, the paper's way or not, is not known."""
    return "checkpoint.sha256" in params


def column_of(cell: Cell, group: Group, backbone: str) -> Column | None:
    """The paper's column that a cell stands in, in whatever reading; None where it has none.

    Args:
        cell: One of the study's test cells.
        group: Where it was measured.
        backbone: The one of the paper's that the group's stands for.
    """
    dataset = STANDS_FOR.get(group.dataset, group.dataset)
    if cell.is_clean:
        return Column(dataset, backbone, "clean", 0.0, 0, "")
    goal = cell.goal if cell.algorithm == "pgd" else ""
    return Column(dataset, backbone, cell.algorithm, cell.eps, cell.steps, goal)
