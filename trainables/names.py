"""The vocabulary that trainables, the tracker and the analysis share; imports nothing of ours.

Accuracies are fractions in [0, 1] everywhere; tables and figures show them in percent.
"""

from __future__ import annotations

from collections.abc import Mapping

# The run list's first columns (MLflow metrics), in this order.
CLEAN = "clean"  # accuracy on the test images, before any attack
ROBUST = "robust"  # the headline: per-image worst over its raw surfaces, test images
ROBUST_VAL = "robust_val"  # the same on validation images: what choices are made by
# Per-image worst over every attack with a budget, test images. DeepFool without one looks for
# the smallest perturbation and breaks every image in the end: it would make this zero.
WORST_CASE = "worst_case"
MASKING_GAP = "masking_gap"  # the largest: the headline's weakest surface less the headline
AUDIT_FAILED = "audit_failed"  # checks of the headline's audit that failed
N = "n"  # test images attacked
TRAIN_SECONDS = "train_seconds"
ATTACK_SECONDS = "attack_seconds"  # of all cells of its plan, diagnostics among them

# Curves, one point an epoch.
TRAIN_LOSS = "train_loss"
TRAIN_ACCURACY = "train_accuracy"
VALIDATION_ACCURACY = "validation_accuracy"
WATCHED = "watched"  # accuracy under the attack that a search may end the training by

# Prefixes.
CELL = "cell/"  # one metric a cell, see `cell_name`
AUDIT = "audit/"  # the same for the attacks of an audit
BY_STEPS = "by_steps/"  # accuracy with MLflow's step = number of attack steps
BY_EPS = "by_eps/"  # accuracy with MLflow's step = 1000 eps
DIAGNOSTIC = "diagnostic/"  # what a diagnostic found: `diagnostic/<label>/<number>`
HYPER = "hp/"  # swept numbers, so that the UI can filter by >=

# What stands behind a cell's name for its further metrics.
HIT = "-hit"  # share of images whose target was reached (targeted attacks)
L2_MEDIAN = "-l2_p50"  # median L2 norm of the perturbation over attacked images
LINF_MEDIAN = "-linf_p50"
SPREAD = "-spread"  # SD of the accuracy over the passes of a model that draws at random

# Tags of a run.
TRIAL_ID = "trial_id"
ARM = "arm"  # configuration less the seed
METHODS = "methods"  # all of the study's names for this arm, as JSON
ROLE = "role"  # TRIAL, CANDIDATE, REPORT or REPLACED
STOPPED = "stopped"  # of a candidate: when its training was given up
EVIDENCE = "evidence"
ATTACK_MARK = "attack_mark"
REASON = "reason"
TRIAL, REPORT = "trial", "report"
CANDIDATE = "candidate"  # what a search only tries
REPLACED = "replaced"  # a trial's run that the driver has deleted to write it anew
# Of the report's run: names the state of all runs, so that readers need not read them again. The
# driver empties it before it writes, and sets a new one when it has ended.
STAMP = "stamp"

# What has become of a search's suggestion. Stopped: its training was given up; failed: it has
# diverged.
SUGGESTED = COMPLETE, STOPPED_EARLY, FAILED, OPEN = ("complete", "stopped", "failed", "open")

# Values of the marks.
EXPLORATORY = "exploratory"  # one seed: no claim
TRUSTED = "trusted"
WEAK = "weak attack"  # a stronger one takes more
MASKED = "masked"  # gradients say less than there is to find
UNAUDITED = "unaudited"
NO_THREAT_MODEL = "no threat model"  # paths, and attacks without a budget

# Artifacts of a trial's run, and of the run tagged REPORT.
CELLS_FILE = "cells.json"
OUTCOMES_FILE = "outcomes.parquet"
AUDIT_FILE = "audit.json"
FAILURE_FILE = "failure.txt"
DIAGNOSTICS_FOLDER = "diagnostics"  # holds `<label>.safetensors`
PLAN_FILE = "plan.json"
STUDY_FILE = "study.yaml"
REPORT_FOLDER = "report"

TEST, VALIDATION = "test", "validation"

WORST_RAW = "worst_raw"  # stands for the surface where a metric is the worst over the raw ones


def is_raw(surface: str) -> bool:
    """Whether a surface is of the raw logits, which no deployed score can mask."""
    return surface == "raw" or surface.endswith("_raw")


def number(value: float) -> str:
    """The shortest text of a number to 12 significant digits: 1.0 -> `1`, 0.02 -> `0.02`."""
    return f"{value:.12g}"


def short(value: object) -> str:
    """A point's value as labels show it, numbers to 6 significant digits: 4 / 3 -> `1.33333`."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cell_name(
    *,
    prefix: str,
    attack: str,
    budget: str,
    targeted: bool,
    surface: str,
    eps: float,
    steps: int,
    extra: Mapping[str, object],
) -> str:
    """The metric name of a cell, unique within a study.

    `{prefix}{attack}-{budget}-{un|tar}-{surface}-eps{e}-n{N}[-key:value …]`, the prefix being
    `cell/test/`, `cell/validation/` or `audit/`, `extra` holding the parameters that are not at
    their default. MLflow refuses `=` and `(`.
    """
    what = [attack, budget, _direction(targeted), surface]
    size = [f"eps{number(eps)}", f"n{steps}"]
    return prefix + "-".join([*what, *size, *_pairs(extra)])


def series_name(
    *, attack: str, budget: str, targeted: bool, surface: str, extra: Mapping[str, object]
) -> str:
    """What cells that differ in eps and steps alone are charted under: their name less both."""
    return "-".join([attack, budget, _direction(targeted), surface, *_pairs(extra)])


def clean_name(split: str) -> str:
    """The metric name of the cell without an attack."""
    return f"{CELL}{split}/clean"


def text(value: object) -> str:
    """A parameter's value as names and params show it."""
    return number(value) if isinstance(value, float) else str(value)


def _direction(targeted: bool) -> str:
    return "tar" if targeted else "un"


def _pairs(extra: Mapping[str, object]) -> list[str]:
    return [f"{key}:{text(value)}" for key, value in sorted(extra.items())]
