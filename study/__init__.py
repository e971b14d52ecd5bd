"""Many trials: study files, planning, Ray, tracking, and the command line.

From Python and notebooks:

    import study
    quickstart = study.open("quickstart")
    quickstart.frame()                          # accuracies, a row a trial
    quickstart.outcomes("clean")                # a row an image and trial
    quickstart.model("sce · lenet5/mnist5k · seed 0")  # images in [0, 1] -> logits
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.notebook import OpenStudy

# Neither Ray nor MLflow reports home unless the user has said so.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def open(
    source: str,
    *,
    overrides: Iterable[str] = (),
    scale: str = "full",
    storage: str | None = None,
    tracking_uri: str | None = None,
) -> OpenStudy:
    """Opens a study to look at its results; nothing is trained or attacked.

    Args:
        source: a preset's name, or the path of a study file.
        overrides: `key=value`, as `--set` takes them.
        scale: one of the file's scales.
        storage: where results are: a folder or fsspec address; by default `STUDY_STORAGE`, else
            `results/store`.
        tracking_uri: MLflow's; by default `STUDY_TRACKING_URI` or `MLFLOW_TRACKING_URI`, else the
            database in `results/`.

    Raises:
        StudyFileNotFound, InvalidStudy: as `study check` tells.
    """
    from study.notebook import open_study  # torch, pandas and MLflow: when they are needed

    return open_study(
        source, overrides=overrides, scale=scale, storage=storage, tracking_uri=tracking_uri
    )
