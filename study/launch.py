"""The trials on Ray Tune: a grid that we enumerated, reused actors, no state of Tune's kept.

Tune schedules, the store remembers: a restarted trial finds its progress there.
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
)
from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from study.deaths import Death, with_their_machine
from study.gpus import shares_of
from study.interrupts import stop_once_more
from study.listener import Listener
from study.news import News
from study.nodes import await_workers, most, nodes, nodes_to_come, require_shared
from study.planned import PlannedTrial
from study.search import ahead
from study.session import session
from study.shares import Shares, as_many
from study.site import Site
from study.spec import Resources
from trainables.errors import NoRoom, NotShared, StudyError
from trainables.packing import packs
from trainables.trainable import StudyTrainable
from trainables.trial import SLICE_SECONDS, Report

if TYPE_CHECKING:
    from study.searching import Searching  # and Optuna, which takes a second to import

_UNSEEN = re.compile(f"{NotShared.__name__}: (.*)")  # in what Ray tells of a worker's error


class OnRay:
    """Runs trials on a Ray.

    Args:
        news: of its machines.
        folder: for what Tune keeps, which nobody reads.
    """

    def __init__(self, news: News, folder: str) -> None:
        self._news = news
        self._folder = folder

    def run(self, trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
        """Runs trials until each has reported its end or lost its worker.

        Tune retries none: it would only those that had reported already, and the driver's loop
        takes up all.
        """
        self._begin(site, listener)
        shares = shares_of(trials, site, listener, self._news)
        found = _packs(trials, site, shares)
        jobs = (_job(pack, site, shares) for pack in found)
        self._fit(listener, {"job": _Listed(jobs)}, num_samples=len(found))

    def search(self, searching: Searching, site: Site) -> None:
        """Runs what a search suggests, until it has no more; see `run`."""
        self._begin(site, searching)
        expected = [trial for trial, _ in ahead(searching.plan, site.store)]
        shares = shares_of(expected, site, searching, self._news)
        parallel = searching.search.settings.parallel or _slots(expected, site, shares)
        errors = _Errors()
        self._fit(
            searching,
            {},
            errors,
            search_alg=_Suggesting(searching, site, shares, errors),
            scheduler=stop_rule(searching),
            num_samples=-1,  # the search says when
            max_concurrent_trials=parallel,
        )

    def _begin(self, site: Site, listener: Listener) -> None:
        """Sees that the cluster can run trials, before anything starts."""
        self._news.idle()
        await_workers(listener.say)
        _check_room(site.resources)
        require_shared(site.store)

    def _fit(
        self,
        listener: Listener,
        space: dict[str, Any],
        errors: _Errors | None = None,
        **how: Any,
    ) -> None:
        """Runs what Tune draws from a space, or a search suggests."""
        errors = errors or _Errors()
        callback = _Callback(listener, self._news, errors)
        tuner = tune.Tuner(
            StudyTrainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                reuse_actors=True, trial_name_creator=_id, trial_dirname_creator=_folder, **how
            ),
            run_config=tune.RunConfig(
                storage_path=tempfile.mkdtemp(dir=self._folder),
                verbose=0,
                callbacks=[callback],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if errors.first is not None:  # Tune would tell it as a traceback in a text
                raise errors.first from None
            raise
        for death in with_their_machine(callback.deaths):
            for trial_id in death.trial_ids:
                listener.excused(trial_id)
        for line in self._news.since_last(every=0.0):
            listener.say(line)


@contextlib.contextmanager
def on_ray(resources: Resources) -> Iterator[OnRay]:
    """One Ray for all that a run of a study has to do, see `session`."""
    # Workers of a Ray that goes on write there until they have heard that we are gone.
    tunes = tempfile.TemporaryDirectory(prefix="study-tune-", ignore_cleanup_errors=True)
    with tunes as folder, session(resources) as news:
        yield OnRay(news, folder)


class _Errors:
    """Keeps what is the user's to mend, of all that Tune calls."""

    def __init__(self) -> None:
        self.first: StudyError | None = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Lets it pass, once it is kept."""
        try:
            yield
        except StudyError as error:
            self.first = self.first or error
            raise


class _Job(dict[str, Any]):
    """What a worker is sent; Tune keeps several copies of a configuration, all with the one job."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Job:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """As plain data: workers know nothing of this module."""
        return dict, (dict(self),)


class _Listed(Domain):
    """Jobs, each drawn once and in their order, and made when it is drawn.

    Of a grid Tune makes all points before the first trial starts, and for each of them a deep
    copy of the whole grid.
    """

    def __init__(self, jobs: Iterable[_Job]) -> None:
        self._left = iter(jobs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Listed:
        return self  # Tune draws each trial's from a copy of its space

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its space to restore it, which we never do."""
        return {}

    def sample(self, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        return next(self._left)


class _Suggesting(Searcher):
    """What a search suggests, as Tune asks for it."""

    def __init__(self, searching: Searching, site: Site, shares: Shares, errors: _Errors) -> None:
        super().__init__()
        self.errors = errors
        self.searching = searching
        self.site = site
        self.shares = shares

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers to restore them, which we never do."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        with self.errors.kept():
            trial = self.searching.next()
        if trial is None:
            return Searcher.FINISHED
        seconds = 0.0 if self.searching.stop else SLICE_SECONDS  # a stop rule hears each epoch
        return {"job": _job([trial], self.site, self.shares, seconds)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the callback tells the search."""


@dataclass(frozen=True, eq=False)
class Known:
    """A trial as a stop rule knows it, of an earlier run or of one without Ray."""

    trial_id: str


def stop_rule(searching: Searching) -> Any:
    """Tune's rule of when to give a training up, which knows the search's earlier trainings."""
    stop = searching.stop
    if stop is None:
        return FIFOScheduler()
    epochs = searching.epochs
    told: dict[str, Any] = {"time_attr": "epoch", "metric": "accuracy", "mode": "max"}
    grace = min(stop.grace, epochs)
    rule: Any
    if stop.rule == "asha":
        rule = AsyncHyperBandScheduler(
            **told,
            max_t=epochs,
            grace_period=grace,
            reduction_factor=stop.factor,
            stop_last_trials=False,  # they have cells to measure
        )
    else:
        # It would pause a trial that has too few others to be compared with.
        never: Any = math.inf
        rule = MedianStoppingRule(**told, grace_period=grace, min_time_slice=never)
    for trial_id, history in searching.histories():
        earlier = Known(trial_id)
        rule.on_trial_add(None, earlier)
        for epoch, accuracy in enumerate(history, start=1):
            rule.on_trial_result(None, earlier, {"epoch": epoch, "accuracy": accuracy})
    return rule


class _Callback(tune.Callback):
    """Hands on what Tune hears."""

    def __init__(self, listener: Listener, news: News, errors: _Errors) -> None:
        self.listener = listener
        self.news = news
        self.errors = errors
        self.deaths: list[Death] = []
        self._ended: set[str] = set()  # trials that said so themselves

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks to restore them, which we never do."""
        return {}

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        stop_once_more()
        for line in self.news.since_last():
            self.listener.say(line)

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.news.busy()
        with self.errors.kept():
            for trial_id in _ids(trial):
                self.listener.started(trial_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        reports = [Report(**report) for report in result["reports"]]
        self._ended |= {report.trial_id for report in reports if report.done}
        with self.errors.kept():
            for report in reports:
                self.listener.reported(report)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        if _id(trial) not in self._ended:
            with self.errors.kept():
                self.listener.stopped(_id(trial), trial.last_result["epoch"])
        _slim(trial)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        details, error = _error_of(trial)
        if unseen := _UNSEEN.search(details):
            with self.errors.kept():
                raise NotShared(unseen[1])
        cause = details.splitlines()[-1:]
        self.deaths.append(Death(_ids(trial), error))
        with self.errors.kept():
            for trial_id in _ids(trial):
                self.listener.lost(trial_id, ": ".join(["its worker died", *cause]), details)
        _slim(trial)


def _error_of(trial: TuneTrial) -> tuple[str, BaseException | None]:
    """How a trial's worker has ended, in words and as Ray raised it.

    Tune's own readers look where it copies this to, which is later. It was pickled in this
    process, into a folder of ours.
    """
    said = Path(trial.error_file).read_text().strip() if trial.error_file else ""
    pickled = trial.pickled_error_file
    return said, cloudpickle.loads(Path(pickled).read_bytes()) if pickled else None


def _slim(trial: TuneTrial) -> None:
    """Lets go of most that Tune would keep of an ended trial for as long as the others take."""
    job, ids = trial.config["job"], _ids(trial)
    job.clear()
    job["trials"] = [{"trial_id": trial_id} for trial_id in ids]
    trial.experiment_tag = ids[0]  # the job once more, as text, which results repeat
    for copied in ("config", "experiment_tag"):
        trial.last_result.pop(copied, None)
    for kept in (trial.metric_analysis, trial.metric_n_steps):
        kept.clear()


def _packs(trials: Sequence[PlannedTrial], site: Site, shares: Shares) -> list[list[PlannedTrial]]:
    """By worker: of one trial, mostly."""
    slots = _slots(trials, site, shares)
    return packs(trials, site.store, site.resources.pack, slots, gpu=bool(shares.asked))


def _job(
    pack: Sequence[PlannedTrial], site: Site, shares: Shares, seconds: float = SLICE_SECONDS
) -> _Job:
    share = shares.of(pack)
    return _Job(
        trials=[_described(trial) for trial in pack],
        packing=site.resources.pack,
        seconds=seconds,
        **site.told(share, shares.room(share)),
    )


def _described(trial: PlannedTrial) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "ids": [trial.id, *(cell.id(trial.id) for cell in trial.job().cells)],
        "trial": trial.job().dump(),
    }


def _ids(trial: TuneTrial) -> list[str]:
    """Of all trials of a pack."""
    return [job["trial_id"] for job in trial.config["job"]["trials"]]


def _id(trial: TuneTrial) -> str:
    """The first trial's, by which Tune knows a pack."""
    return _ids(trial)[0]


def _folder(trial: TuneTrial) -> str:
    """A search may take a trial up twice."""
    return f"{_id(trial)}-{trial.trial_id}"


def _slots(trials: Iterable[PlannedTrial], site: Site, shares: Shares) -> int:
    """How many trials there is room for at once, when the cluster has grown; at least one."""
    slots = most("CPU") // site.resources.cpu
    share = min((shares.of([trial]) for trial in trials), default=0.0)
    if share:
        slots = min(slots, most("GPU") * as_many(share))
    return max(int(slots), 1)


def _check_room(resources: Resources) -> None:
    """Ray would wait for ever for a node that large."""
    there = [*nodes(), *nodes_to_come()]
    with_gpu = [have for have in there if resources.gpu and have.get("GPU")]
    largest = max((have.get("CPU", 0) for have in with_gpu or there), default=0)
    if resources.cpu > largest:
        what = f"resources.cpu: a trial asks for {resources.cpu} cores"
        kind = "node with a GPU" if with_gpu else "node"
        raise NoRoom(f"{what}, the largest {kind} has {largest:.0f}")
