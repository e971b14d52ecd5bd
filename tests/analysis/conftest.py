"""The tracked studies that the tests of the analysis read; written once."""

from __future__ import annotations

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import pytest
from mlflow import MlflowClient

from analysis.plan import Group
from analysis.runs import Results, load

from .audited_study import track_audited
from .tracked_study import (
    DIAGNOSTICS,
    DOUBLE,
    FLAT,
    LOOKED,
    LOOKED_TWICE,
    MODELS,
    STRAYS,
    track,
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking store: `small`; `flat`, without a surface; `double`, two data sets; `empty`.

    `looked` and `looked-twice`, two data sets, have diagnostics; `audited` has an audit.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    track(uri, folder, "small", MODELS, STRAYS)
    track(uri, folder, "flat", FLAT)
    track(uri, folder, "double", DOUBLE)
    track(uri, folder, "looked", LOOKED, diagnostics=DIAGNOSTICS)
    both = {name: DIAGNOSTICS[name] for name in ("embedding", "looks")}
    track(uri, folder, "looked-twice", LOOKED_TWICE, diagnostics=both)
    track_audited(uri, folder, "audited")
    MlflowClient(tracking_uri=uri).create_experiment(
        "empty", artifact_location=(folder / "empty").as_uri()
    )
    return uri


@pytest.fixture(scope="session")
def small(store: str) -> Results:
    """The study `small`, loaded."""
    return load(store, "small")


@pytest.fixture(scope="session")
def flat(store: str) -> Results:
    """The study `flat`, loaded."""
    return load(store, "flat")


@pytest.fixture(scope="session")
def looked(store: str) -> Results:
    """The study `looked`, loaded."""
    return load(store, "looked")


@pytest.fixture(scope="session")
def audited(store: str) -> Results:
    """The study `audited`, loaded."""
    return load(store, "audited")


@pytest.fixture(scope="session")
def group() -> Group:
    """The one data set and backbone of `small`, `flat`, `looked` and `audited`."""
    return Group("mnist5k", "lenet5")
