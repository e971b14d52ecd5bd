"""Small studies, tracked as the driver tracks one, with numbers that can be checked by hand."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from trainables import names

IMAGES = 10
S_VALUES, M_VALUES = (1.0, 1.5, 2.0), (0.05, 0.1)
QUESTION = "Does <script>alert(1)</script> I-SCE resist?"

CLEAN, VAL_CLEAN = names.clean_name(names.TEST), names.clean_name(names.VALIDATION)


def cell(split: str, surface: str, *, eps: float = 0.04, targeted: bool = False) -> str:
    """The name of one PGD cell."""
    return names.cell_name(
        prefix=f"{names.CELL}{split}/",
        attack="pgd",
        budget="l2_rms",
        targeted=targeted,
        surface=surface,
        eps=eps,
        steps=20,
        extra={},
    )


CE_RAW, MARGIN_RAW = cell(names.TEST, "ce_raw"), cell(names.TEST, "margin_raw")
DEPLOYED = cell(names.TEST, "ce_deployed")
WEAK = cell(names.TEST, "margin_raw", eps=0.02)
TARGETED = tuple(cell(names.TEST, s, targeted=True) for s in ("ce_raw", "margin_raw"))
WORST_RAW = {
    cell(names.TEST, names.WORST_RAW): (CE_RAW, MARGIN_RAW),
    cell(names.TEST, names.WORST_RAW, targeted=True): TARGETED,
}
VALIDATION = tuple(cell(names.VALIDATION, s) for s in ("ce_raw", "margin_raw"))
DEEPFOOL = names.cell_name(
    prefix=f"{names.CELL}{names.TEST}/",
    attack="deepfool",
    budget="overshoot",
    targeted=False,
    surface="raw",
    eps=0.02,
    steps=50,
    extra={},
)


@dataclass(frozen=True)
class Model:
    """One trial and how it does: images (of `IMAGES`) that the headline leaves correct."""

    methods: tuple[str, ...]
    label: str
    seed: int
    robust: int
    validation: int
    val_clean: int = 9
    axes: Mapping[str, float] | None = None
    status: str | None = "FINISHED"  # None: never started
    dataset: str = "mnist5k"
    lacks: str = ""  # a cell without a result

    @property
    def trial_id(self) -> str:
        """Unique within the study."""
        return f"{self.label}-{self.dataset}-{self.seed}".replace(" ", "-")


def isce(s: float, m: float, *, robust: int, validation: int, **more: Any) -> Model:
    """One point of the grid."""
    label = f"isce s={names.number(s)} m={names.number(m)}"
    axes = {"loss.s": s, "loss.m": m}
    return Model(("isce",), label, 0, robust, validation, axes=axes, **more)


# Validation ties at (1, .05), (1.5, .1) and (2, .1); clean validation accuracy rules out the
# first, the smaller s decides for (1.5, .1). The test maximum is at (2, .05).
MODELS = (
    Model(("sce",), "sce", 0, 4, 4),
    Model(("sce",), "sce", 1, 5, 4),
    Model(("sce",), "sce", 2, 6, 4),
    Model(("norm-sce",), "norm-sce", 0, 2, 3),
    Model(("norm-sce",), "norm-sce", 1, 4, 3),
    Model(("norm-sce",), "norm-sce", 2, 1, 1, status=None),
    isce(1.0, 0.05, robust=2, validation=6, val_clean=8),
    isce(1.5, 0.05, robust=3, validation=5),
    isce(2.0, 0.05, robust=8, validation=4),
    isce(1.0, 0.1, robust=1, validation=1, status="FAILED"),
    isce(1.5, 0.1, robust=5, validation=6),
    isce(2.0, 0.1, robust=6, validation=6),
)


def survivors(model: Model) -> dict[str, list[int]]:
    """Which images each cell leaves correct; the clean model has image 0 wrong.

    `margin_raw` breaks the first images, `ce_raw` the last one, so that the per-image worst
    over both is below either.
    """
    lost = IMAGES - 1 - model.robust
    margin = [int(i >= lost) for i in range(IMAGES)]
    last = [int(0 < i < IMAGES - 1) for i in range(IMAGES)]
    clean = [int(i > 0) for i in range(IMAGES)]
    worse = [int(i >= lost + 1) for i in range(IMAGES)]
    return {
        CE_RAW: last,
        MARGIN_RAW: margin,
        DEPLOYED: clean,
        WEAK: [int(i >= max(lost - 1, 1)) for i in range(IMAGES)],
        TARGETED[0]: last,
        TARGETED[1]: worse,
        DEEPFOOL: [int(i == 5) for i in range(IMAGES)],
    }


def metrics(model: Model) -> dict[str, float]:
    """What the driver logs of a model."""
    kept = survivors(model)
    left = {name: sum(images) / IMAGES for name, images in kept.items()}
    bounded = [images for name, images in kept.items() if name != DEEPFOOL]
    logged = {
        names.CLEAN: 0.9,
        names.ROBUST: model.robust / IMAGES,
        names.ROBUST_VAL: model.validation / IMAGES,
        names.WORST_CASE: _share_of_worst(bounded),
        names.MASKING_GAP: 0.9 - model.robust / IMAGES,
        names.N: IMAGES,
        CLEAN: 0.9,
        VAL_CLEAN: model.val_clean / IMAGES,
        **dict.fromkeys(VALIDATION, model.validation / IMAGES),
        **left,
        **{
            name: _share_of_worst(kept[cell] for cell in cells) for name, cells in WORST_RAW.items()
        },
    }
    logged.pop(model.lacks, None)
    return logged


def _share_of_worst(attacks: Iterable[list[int]]) -> float:
    return sum(map(min, zip(*attacks, strict=True))) / IMAGES


def outcomes(model: Model) -> pd.DataFrame:
    """The per-image outcomes of a model."""
    return pd.DataFrame(
        {
            "cell": name,
            "index": index,
            "label": 0,
            "passes": 1,
            "correct_before": int(index > 0),
            "correct_after": correct,
            "l2": 1.0,
            "linf": 0.1,
            "queries": 0,
            "target": -1,
            "hit": 0,
        }
        for name, kept in survivors(model).items()
        for index, correct in enumerate(kept)
    )


def history(model: Model) -> list[Metric]:
    """A training of two epochs; the loss of the second was logged twice, wrongly at first."""
    points = {
        names.TRAIN_LOSS: (2.0 + model.seed, 9.0),
        names.TRAIN_ACCURACY: (0.5, 1.0),
        names.VALIDATION_ACCURACY: (0.6, 0.9 + model.seed / 100),
    }
    logged = [
        Metric(name, value, 0, epoch)
        for name, values in points.items()
        for epoch, value in enumerate(values, start=1)
    ]
    return [*logged, Metric(names.TRAIN_LOSS, 1.0 + model.seed, 1, 2)]


def described_cells() -> dict[str, dict[str, Any]]:
    """The plan's cells."""
    cells: dict[str, dict[str, Any]] = {
        CLEAN: {"split": "test", "attack": "clean", "n": IMAGES},
        VAL_CLEAN: {"split": "validation", "attack": "clean", "n": IMAGES},
        DEEPFOOL: {
            "split": "test",
            "attack": "deepfool",
            "algorithm": "deepfool",
            "budget": "overshoot",
            "norm": None,
            "targeted": False,
            "surface": "raw",
            "eps": 0.02,
            "steps": 50,
            "n": IMAGES,
            "extra": {},
        },
    }
    for name in (CE_RAW, MARGIN_RAW, DEPLOYED, WEAK, *TARGETED, *VALIDATION):
        split, rest = name.removeprefix(names.CELL).split("/")
        _, _, goal, surface, eps, _ = rest.split("-")
        cells[name] = {
            "split": split,
            "attack": "pgd",
            "algorithm": "pgd",
            "budget": "l2_rms",
            "norm": "l2",
            "targeted": goal == "tar",
            "surface": surface,
            "eps": float(eps.removeprefix("eps")),
            "steps": 20,
            "n": IMAGES,
            "extra": {},
        }
    return cells


# Label -> component; the last is one that the analysis does not know.
DIAGNOSTICS = {"embedding": "embedding", "looks": "exhibits", "theory": "theory", "sharp": "sharp"}
DIMENSIONS = {"sce": 3, "isce": 2}  # of the features; of any other method 5


def pixels(index: int, channels: int) -> np.ndarray:
    """Clean image `index`, 2 x 2: channel c of it is (index + c / 10) / 20 throughout."""
    values = [np.full((2, 2), (index + channel / 10) / 20) for channel in range(channels)]
    return np.stack(values).astype(np.float32)


def findings(model: Model) -> dict[str, tuple[dict[str, np.ndarray], dict[str, float]]]:
    """What each diagnostic leaves of a model: arrays and numbers.

    Kept as exhibits are images 0, 2, 4, 6 and 8 of class index % 3, of which the attack breaks
    2 and 8. The theory finds nothing broken on models of isce.
    """
    index = np.arange(0, IMAGES, 2)
    label = index % 3
    clean = np.stack([pixels(i, 3 if model.label == "sce" else 1) for i in index])
    after = np.where(np.isin(index, (2, 8)), label + 10, label)
    exhibits = {
        "index": index,
        "clean": clean,
        "attacked": clean + np.float32(0.5),
        "label": label,
        "before": label,
        "after": after,
        "margin": np.array([3.0, -2.0, 1.0, 0.5, -4.0]) + model.seed,
        "l2": index / 10,
        "linf": index / 100,
        "first": np.array([0]),
        "worst": np.array([4, 1, 3]),
        "best": np.array([0, 2]),
    }
    dimensions = DIMENSIONS.get(model.methods[0], 5)
    features = np.arange(IMAGES * dimensions, dtype=np.float32).reshape(IMAGES, dimensions)
    classes = np.arange(IMAGES) % 3
    embedding = {"features": features, "labels": classes, "predicted": (classes + 1) % 3}
    theory = {"broken": 8.0 + model.seed, "holds": 0.25, "holds_on_path": 0.2, "larger": 0.5}
    theory |= {"violations": 0.1, "f_i": 0.9 + model.seed / 10, "others": 8e-30}
    return {
        "embedding": (embedding, {"fisher": 2.5, "nearest_mean": 0.7 + model.seed / 10}),
        "looks": (exhibits, {"accuracy": model.robust / IMAGES}),
        "theory": ({"z": np.zeros(3)}, {"broken": 0.0} if "isce" in model.methods else theory),
        "sharp": ({"curve": np.zeros(3)}, {"peak": 1234.5}),
    }


def plan(
    study: str, models: tuple[Model, ...], diagnostics: Mapping[str, str] | None
) -> dict[str, Any]:
    """The plan of a study of these models; None for diagnostics: of a time without any."""
    swept = any(model.axes for model in models)
    methods = list(dict.fromkeys(method for model in models for method in model.methods))
    return {
        "study": study,
        "question": QUESTION,
        "command": f"study run {study}",
        "baseline": "sce",
        "controls": {"isce": ["norm-sce"]},
        "choose": ["isce"],
        "protocols": {f"lenet5/{model.dataset}": protocol() for model in models},
        "methods": methods,
        "axes": {"isce": {"loss.s": S_VALUES, "loss.m": M_VALUES}} if swept else {},
        **({} if diagnostics is None else {"diagnostics": dict(diagnostics)}),
        "trials": [described(model) for model in models],
        "seeds": {
            method: sorted({model.seed for model in models if method in model.methods})
            for method in methods
        },
        "provenance": {
            "versions": {"torch": "2.15.0"},
            "python": "3.11.7",
            "git": "abc123",
            "platform": "Linux",
            "data": {"mnist5k": "d1ge57"},
        },
    }


def protocol() -> dict[str, Any]:
    """What is measured wherever a model was trained."""
    return {
        "headline": {
            "test": [CE_RAW, MARGIN_RAW],
            "validation": list(VALIDATION),
            "label": "PGD untargeted, l2_rms eps 0.04, 20 steps",
        },
        "worst_raw": WORST_RAW,
        "cells": described_cells(),
    }


def described(model: Model) -> dict[str, Any]:
    """A trial of the plan."""
    return {
        "trial_id": model.trial_id,
        "methods": list(model.methods),
        "arm": f"{model.label} {model.dataset}",
        "labels": {method: model.label for method in model.methods},
        "seed": model.seed,
        "dataset": model.dataset,
        "backbone": "lenet5",
        "axes": dict(model.axes or {}),
        "params": {"method": model.methods[0]},
        "evidence": "exploratory" if model.axes else "3 seeds",
        "name": f"{model.label} · lenet5/{model.dataset} · seed {model.seed}",
    }


# A trial that a newer attempt failed after it had succeeded, and one that no plan knows.
STRAYS = (replace(MODELS[0], status="FAILED"), Model(("sce",), "forgotten", 7, 8, 8))
FLAT = (
    Model(("sce", "plain"), "sce", 0, 4, 4),
    Model(("sce", "plain"), "sce", 1, 5, 4, lacks=DEEPFOOL),
)
_ONE_SEED = tuple(model for model in MODELS if model.seed == 0 and model.label != "norm-sce")
DOUBLE = _ONE_SEED + tuple(replace(model, dataset="mnist") for model in _ONE_SEED)
# Validation chooses the second point of isce; the loud method's first seed has failed.
LOOKED = (
    Model(("sce",), "sce", 0, 4, 4),
    Model(("sce",), "sce", 1, 6, 4),
    isce(1.0, 0.05, robust=3, validation=5),
    isce(2.0, 0.1, robust=7, validation=6),
    Model(("<b>loud</b>",), "<b>loud</b>", 0, 5, 5, status="FAILED"),
    Model(("<b>loud</b>",), "<b>loud</b>", 1, 5, 5),
    Model(("none yet",), "none yet", 0, 5, 5, status=None),
)
LOOKED_TWICE = tuple(Model(("ls",), "ls", 0, 4, 4, dataset=name) for name in ("mnist5k", "mnist"))


def track(
    uri: str,
    folder: Path,
    study: str,
    models: tuple[Model, ...],
    strays: tuple[Model, ...] = (),
    diagnostics: Mapping[str, str] | None = None,
) -> None:
    """Writes the study to the tracking server as the driver does; `strays` are not planned."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment(study, artifact_location=(folder / study).as_uri())
    for model in (*models, *strays):
        if model.status is not None:
            _track_trial(client, experiment, model, folder, diagnostics or {})
    run = client.create_run(experiment, tags={names.ROLE: names.REPORT}).info.run_id
    wanted = plan(study, models, diagnostics)
    client.log_text(run, json.dumps(wanted), names.PLAN_FILE)
    client.log_text(run, f"study: {study}\n# <b>bold</b>\n", names.STUDY_FILE)
    client.set_terminated(run)


def _track_trial(
    client: MlflowClient,
    experiment: str,
    model: Model,
    folder: Path,
    diagnostics: Mapping[str, str],
) -> None:
    tags = {
        names.ROLE: names.TRIAL,
        names.TRIAL_ID: model.trial_id,
        names.ATTACK_MARK: names.UNAUDITED,
        names.METHODS: json.dumps(model.methods),
        "git": "abc123",
        "device": "cpu",
    }
    if model.status == "FAILED":
        tags[names.REASON] = "NonFiniteLoss: <i>nan</i>"
    run = client.create_run(experiment).info.run_id
    logged = metrics(model)
    for label in diagnostics:
        arrays, numbers = findings(model)[label]
        logged |= {f"{names.DIAGNOSTIC}{label}/{name}": value for name, value in numbers.items()}
        _track_arrays(client, run, f"{label}.safetensors", arrays)
    client.log_batch(
        run,
        metrics=[*(Metric(name, value, 0, 0) for name, value in logged.items()), *history(model)],
        params=[Param("seed", str(model.seed))],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    path = folder / names.OUTCOMES_FILE
    outcomes(model).to_parquet(path, index=False)
    client.log_artifact(run, str(path))
    client.set_terminated(run, status=model.status)


def _track_arrays(
    client: MlflowClient, run: str, name: str, arrays: Mapping[str, np.ndarray]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_bytes(safetensors.numpy.save(dict(arrays)))
        client.log_artifact(run, str(file), names.DIAGNOSTICS_FOLDER)
