"""One model's life as resumable steps: train it, then measure every cell. Free of Ray."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from trainables.classifier import Classifier
from trainables.config import Cell, TrialConfig, model_from
from trainables.datasets.base import BATCH, Splits
from trainables.datasets.load import load_splits
from trainables.errors import DamagedEntry, NonFiniteLoss, StorageAway
from trainables.evaluation import measure, watched_accuracy
from trainables.execution import Execution, free_memory, is_out_of_memory
from trainables.store import Store
from trainables.training import Epoch, Trainer, load_weights, new_classifier, weights_of

R = TypeVar("R")

SLICE_SECONDS = 5.0  # work between two reports: a driver that hears more often is the bottleneck


@dataclass(frozen=True)
class Report:
    """What a step tells the driver; plain data, so that it travels through Ray.

    Attributes:
        trial_id: whose step it was.
        done: nothing is left to do, or it failed.
        failed: the reason, None unless it failed.
        warning: something that was mended on the way.
        epochs: curve points that this step added.
        epoch: epochs trained so far.
        cells: cells measured so far.
        waits: done but for cells that need a model, another or a given one, which is not there.
        starved: given up for want of memory; it may do with a larger share of a GPU.
        away: given up for want of the storage, which was away for too long; to be tried again.
    """

    trial_id: str
    done: bool
    failed: str | None = None
    warning: str | None = None
    epochs: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0
    cells: int = 0
    waits: bool = False
    starved: str | None = None
    away: str | None = None


class Trial:
    """A model's life; every finished piece of it is in the store and is never repeated."""

    def __init__(
        self,
        config: TrialConfig,
        store: Store,
        execution: Execution,
        trainer: type[Trainer] = Trainer,
    ) -> None:
        self.config = config
        self.store = store
        self.execution = execution
        self.id = config.model.id
        self.record = _new_record()
        self._new_trainer = trainer
        self._trainer: Trainer | None = None
        self._classifier: Classifier | None = None
        self._missing: list[Cell] | None = None
        self._waiting: list[Cell] = []  # for models that are not there yet
        self._batch = BATCH  # images attacked at a time; none of the results depends on it
        self._warning: str | None = None

    def advance(self, seconds: float = SLICE_SECONDS) -> Report:
        """One step, with whatever goes wrong caught, recorded and reported."""
        report = self._guarded(lambda: self._step(seconds))
        warnings = [text for text in (report.warning, *self.store.unsaid) if text]
        self.store.unsaid.clear()
        return replace(report, warning="; ".join(warnings) or None)

    def open(self) -> Report | None:
        """Finds what has been done already, ahead of the first step; reports what goes wrong."""
        return self._guarded(lambda: self._open() if self._missing is None else None)

    @property
    def trainer(self) -> Trainer | None:
        """What trains it, while it is open and there are epochs to go."""
        return None if self._trained() else self._trainer

    def _guarded(self, work: Callable[[], R]) -> R | Report:
        try:
            return work()
        except DamagedEntry as error:  # it is set aside by now: make it anew
            self._forget()
            return Report(trial_id=self.id, done=False, warning=str(error))
        except StorageAway as error:  # nor can the reason be kept
            self._forget()
            return Report(trial_id=self.id, done=True, away=error.args[0])
        except Exception as error:
            return self._fail(error)

    def _step(self, seconds: float) -> Report:
        """Works for about `seconds`, ending at an epoch's or a cell's end."""
        if self._missing is None:
            self._open()
        epochs: list[Epoch] = []
        self._warning = None
        if self._trainer is not None:
            self._until(seconds, lambda: epochs.append(self._train_epoch()), self._trained)
            if self._trained():
                self._keep_model()
        else:
            self._until(seconds, self._measure_next, lambda: not self._missing)
        self.record["failed"] = ""
        self._write_record()
        missing = self._missing or []
        done = self._trainer is None and not missing
        return Report(
            trial_id=self.id,
            done=done,
            warning=self._warning,
            epochs=[asdict(epoch) for epoch in epochs],
            epoch=len(self.record["history"]),
            cells=len(self.config.cells) - len(missing) - len(self._waiting),
            waits=done and bool(self._waiting),
        )

    def _open(self) -> None:
        """Finds in the store what has been done already."""
        self.record = self.store.read_json(f"trials/{self.id}", "record.json") or self.record
        present = self.store.has(f"models/{self.id}")
        if not present and self.config.model.checkpoint is None:
            self._trainer = self._new_trainer(self.config.model, self._splits(), self.execution)
            if self.store.has(f"progress/{self.id}"):
                self._trainer.load(self.store.read(f"progress/{self.id}"))
        elif present:
            self.store.remove(f"progress/{self.id}")  # a crash may have come before this
            history = self.store.read_json(f"models/{self.id}", "history.json")
            self.record["history"] = history
        measured = self.store.entries(f"outcomes/{self.id}")
        missing = [cell for cell in self.config.cells if cell.id(self.id) not in measured]
        here = {
            source: self.store.has(f"models/{source}")
            for cell in missing
            for source in cell.sources
        }
        lost = not present and self._trainer is None  # weights that only the driver can bring
        self._waiting = [
            cell for cell in missing if lost or not all(here[id] for id in cell.sources)
        ]
        self._missing = [cell for cell in missing if cell not in self._waiting]

    @staticmethod
    def _until(seconds: float, work: Callable[[], None], finished: Callable[[], bool]) -> None:
        started = time.perf_counter()
        while not finished():
            work()
            if time.perf_counter() - started >= seconds:
                return

    def _trained(self) -> bool:
        return self._trainer is not None and self._trainer.done

    def _train_epoch(self) -> Epoch:
        assert self._trainer is not None
        epoch = self._trainer.epoch()
        if self.config.watch is not None:
            watched = watched_accuracy(
                self._trainer.classifier, self.config.watch, self._splits(), batch=self._batch
            )
            epoch = self._trainer.history[-1] = replace(epoch, watched=watched)
        self.store.write(f"progress/{self.id}", self._trainer.save())
        return epoch

    def _keep_model(self) -> None:
        """The record, then the model, then no more progress: a crash loses none of them."""
        assert self._trainer is not None
        self._write_record()
        self.store.write(
            f"models/{self.id}",
            {
                "weights.safetensors": weights_of(self._trainer.classifier),
                "config.json": _json(self.config.model.spec()),
                "history.json": _json(self.record["history"]),
                "execution.json": _json(self.record["execution"]),
            },
        )
        self.store.remove(f"progress/{self.id}")
        self._classifier, self._trainer = self._trainer.classifier, None

    def _measure_next(self) -> None:
        """Measures the next cell, and all that the same run answers."""
        assert self._missing
        started = time.perf_counter()
        cells = [cell for cell in self._missing if cell.group == self._missing[0].group]
        if self._classifier is None:
            self._classifier = load_model(self.store, self.id, self.execution)
        sources = cells[0].sources
        models = {source: load_model(self.store, source, self.execution) for source in sources}
        measured = self._measured(cells, models)
        seconds = round((time.perf_counter() - started) / len(cells), 3)
        for cell, objects in zip(cells, measured, strict=True):
            cell_id = cell.id(self.id)
            self.store.write(
                f"outcomes/{self.id}/{cell_id}",
                {
                    **objects,
                    "cell.json": _json(cell.spec()),
                    "execution.json": _json(self.execution.record()),
                },
            )
            self.record["cell_seconds"][cell_id] = seconds
            self._missing.remove(cell)

    def _measured(
        self, cells: Sequence[Cell], models: Mapping[str, Classifier]
    ) -> list[dict[str, bytes]]:
        """What is found of cells, in smaller batches where memory is short."""
        assert self._classifier is not None
        while True:
            try:
                return measure(self._classifier, cells, self._splits(), models, batch=self._batch)
            except Exception as error:
                if not is_out_of_memory(error) or self._batch == 1:
                    raise
            # Not while the error is held, and with it what did not fit.
            self._batch //= 2
            self._warning = f"out of memory: attacked {self._batch} images at a time from now on"
            free_memory()

    def _splits(self) -> Splits:
        return load_splits(self.config.model.dataset, self.execution)

    def _fail(self, error: Exception) -> Report:
        """Keeps the reason and the traceback; the study goes on without this trial."""
        reason = f"{type(error).__name__}: {error}"
        _add_failure(self.record, reason, traceback.format_exc())
        with contextlib.suppress(OSError):  # the disk may be what failed
            self._write_record()
        self._forget()
        if is_out_of_memory(error):
            return Report(trial_id=self.id, done=True, starved=reason)
        return Report(trial_id=self.id, done=True, failed=reason)

    def _forget(self) -> None:
        """The next step begins with what the store holds, not with half of a failed one."""
        self._trainer = self._classifier = self._missing = None

    def _write_record(self) -> None:
        if self._trainer is not None:
            self.record["history"] = [asdict(epoch) for epoch in self._trainer.history]
            packing = self._trainer.packing
        else:
            packing = self.record.get("execution", {}).get("packing", 1)
        self.record["execution"] = self.execution.record(packing)
        self.record["time"] = time.time()
        self.store.write_json(f"trials/{self.id}", "record.json", self.record)


def load_model(store: Store, model_id: str, execution: Execution) -> Classifier:
    """A trained model of the store.

    Args:
        store: where it is.
        model_id: its trial's id.
        execution: what it is to be computed on.

    Raises:
        FileNotFoundError: it is not there.
        DamagedEntry: its bytes are not those that were written; it is set aside.
    """
    objects = store.read(f"models/{model_id}")
    config = model_from(json.loads(objects["config.json"]))
    classifier = new_classifier(config, execution)
    load_weights(classifier, objects["weights.safetensors"])
    return classifier


def record_of(store: Store, trial_id: str) -> dict[str, Any]:
    """How a trial went: `history`, `cell_seconds`, `failures`, `execution`, `time`.

    As of a new one where there is none, or a damaged one, which nothing but the past depends on.
    """
    return store.recall(f"trials/{trial_id}", "record.json") or _new_record()


def failure_of(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a trial has failed of: `reason, traceback, time`; None where it has not, or went on.

    Args:
        record: see `record_of`.
    """
    return record["failures"][-1] if record.get("failed") else None


def is_final(reason: str) -> bool:
    """Whether what a trial failed of is its configuration's: the same code fails of it again."""
    return reason.partition(":")[0] in (NonFiniteLoss.__name__, ValueError.__name__)


def note_failure(store: Store, trial_id: str, reason: str, details: str) -> None:
    """Keeps why a trial was given up that could not say so itself."""
    record = record_of(store, trial_id)
    _add_failure(record, reason, details)
    store.write_json(f"trials/{trial_id}", "record.json", record)


def _new_record() -> dict[str, Any]:
    return {"history": [], "cell_seconds": {}, "failures": [], "failed": ""}


def _add_failure(record: dict[str, Any], reason: str, details: str) -> None:
    record["failures"].append({"reason": reason, "traceback": details, "time": time.time()})
    record["failed"] = reason


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
