"""A study from Python: its plan, its results as frames, its models ready to be attacked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from analysis.kept import Report
from analysis.report import write_report
from analysis.runs import load
from study.database import database_of
from study.files import FULL, read_study
from study.found import with_found
from study.lookup import find_trial
from study.places import RESULTS, STORAGE, tracking_of
from study.plan import make_plan
from study.planned import Plan
from study.results import image_frame, read_outcome
from study.status import Status, status_of
from trainables import names
from trainables.classifier import Classifier
from trainables.errors import BadOption, UnknownName
from trainables.execution import Execution
from trainables.store import Store
from trainables.trial import load_model


class OpenStudy:
    """What `study.open` gives; nothing of it trains or attacks.

    Attributes:
        plan: what the study wants, with what its searches and refinements have found.
        store: where its results are.
        tracking_uri: MLflow's.
    """

    def __init__(self, plan: Plan, store: Store, tracking_uri: str) -> None:
        self.plan = plan
        self.store = store
        self.tracking_uri = tracking_uri

    def __repr__(self) -> str:
        return f"<study {self.plan.name}: {len(self.plan.trials)} models, {self.store.url}>"

    def status(self) -> Status:
        """How far it is."""
        database = database_of(self.tracking_uri)
        tracked = database is None or database.exists()
        return status_of(self.plan, self.store, self.tracking_uri if tracked else None)

    def frame(self) -> pd.DataFrame:
        """One row a method and trial, as reports read them from MLflow; see `analysis.runs.load`.

        Raises:
            NothingTracked: no run of the study has been tracked.
            BadAddress: the tracking server does not answer.
        """
        return load(self.tracking_uri, self.plan.name).frame

    def outcomes(self, cell: str) -> pd.DataFrame:
        """What became of each image under one attack, a row an image and trial.

        Args:
            cell: a metric of `frame`: `clean`, or a name that begins with `cell/` or `audit/`.

        Returns:
            Columns `trial_id` (which joins `frame`), `name, seed, index` (of the image in the
            split's order), and those of `study.results.image_frame`. Trials without this result
            are left out.

        Raises:
            UnknownName: the study has no such cell; names the nearest.
        """
        metric = names.clean_name(names.TEST) if cell == names.CLEAN else cell
        planned = [trial for trial in self.plan.trials if metric in trial.cells]
        if not planned:
            known = dict.fromkeys(name for trial in self.plan.trials for name in trial.cells)
            raise UnknownName("cell", cell, known)
        frames = []
        for trial in planned:
            with contextlib.suppress(FileNotFoundError):
                outcome = read_outcome(self.store, trial.id, trial.cell_ids[metric])
                found = image_frame(outcome).reset_index()
                seed = trial.model.seed
                frames.append(found.assign(trial_id=trial.id, name=trial.name, seed=seed))
        whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        return whole[[*_LEADING, *whole.columns.drop(_LEADING)]] if frames else whole

    def model(self, trial: str, device: str = "cpu") -> Classifier:
        """A trained model, ready for attacks: images (B, C, H, W) in [0, 1] -> logits (B, K).

        It is in eval mode and its parameters want no gradients. Its normalisation is within. One
        that draws at random is told its draws: `model(images, Draws((0,), indices))`, see
        `trainables.seeding`.

        Args:
            trial: its run's name, or its id or the beginning of it.
            device: what torch calls it.

        Raises:
            BadOption: no trial, or several, are called so; or it is not trained yet.
        """
        planned = find_trial(self.plan, trial)
        execution = Execution(device=torch.device(device), channels_last=False)
        try:
            model = load_model(self.store, planned.id, execution)
        except FileNotFoundError:
            raise BadOption(
                f"{planned.name} is not trained yet in {self.store.url}: `study run` does it"
            ) from None
        return model.eval().requires_grad_(False)

    def report(self, folder: str | Path | None = None) -> Report:
        """Draws figures, tables and the page, as `study report` does.

        Args:
            folder: where to; by default `results/reports/STUDY`.
        """
        name = self.plan.name
        where = RESULTS / "reports" / name if folder is None else Path(folder)
        return write_report(self.tracking_uri, name, where, f"study.open({name!r}).report()")


_LEADING = ["trial_id", "name", "seed", "index"]


def open_study(
    source: str,
    *,
    overrides: Iterable[str] = (),
    scale: str = FULL,
    storage: str | None = None,
    tracking_uri: str | None = None,
) -> OpenStudy:
    """See `study.open`."""
    places = os.environ
    uri = tracking_uri or places.get("STUDY_TRACKING_URI") or places.get("MLFLOW_TRACKING_URI")
    store = Store(storage or places.get("STUDY_STORAGE") or STORAGE)
    plan = with_found(make_plan(read_study(source, tuple(overrides), scale)), store)
    return OpenStudy(plan, store, tracking_of(uri))
