"""Optuna's part in a search: it suggests, and is told what came of it.

Its SQLite database is a projection of the store's record, as MLflow's is: optuna-dashboard shows
it, and a lost one is made anew.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState

from study.search import Search, Suggestion
from study.space import Axis, Range, settled
from study.spec import Search as Settings
from trainables import names
from trainables.seeding import derive

NUMBER = "suggestion"  # the attribute that names a suggestion of ours
_STATES = {
    names.COMPLETE: TrialState.COMPLETE,
    names.STOPPED_EARLY: TrialState.PRUNED,
    names.FAILED: TrialState.FAIL,
    names.OPEN: TrialState.RUNNING,
}


class Sampler:
    """Suggests points for a search.

    Every suggestion is a function of the search's seed, its number and the results before it, so
    that a search goes on after a crash as it would have without.

    Args:
        search: what is looked for.
        database: SQLite file, made if there is none; several searches share one.
    """

    def __init__(self, search: Search, database: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.search = search
        database.parent.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            storage=f"sqlite:///{database.absolute()}",
            study_name=f"{search.name}/{search.id[:8]}",
            directions=["maximize"] * len(search.settings.objective),
            load_if_exists=True,
        )
        self._asked: dict[int, OptunaTrial] = {}  # by the suggestion's number, as all below
        self._numbers: dict[int, int] = {}  # which of the database's trials it is
        self._reconcile()

    def suggest(self) -> tuple[int, dict[str, Any]]:
        """The next suggestion's number and its value along each axis."""
        number = len(self.search.suggestions)
        self.study.sampler = _sampler(self.search.settings, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what of Optuna's is experimental
            trial = self.study.ask()
            trial.set_user_attr(NUMBER, number)
            axes: dict[str, Any] = {}
            settled(self.search.study, self.search.method, _picking(trial, axes))
        self._asked[number], self._numbers[number] = trial, trial.number
        return number, axes

    def tell(self, suggestion: Suggestion, history: Iterable[float] = ()) -> None:
        """What came of a suggestion.

        Args:
            suggestion: that has ended.
            history: accuracies on validation images by epoch, as far as it was trained.
        """
        asked = self._asked.pop(suggestion.number, None)
        if asked is not None and len(self.search.settings.objective) == 1:
            for epoch, value in enumerate(history, start=1):
                asked.report(value, epoch)
        number, state = self._numbers[suggestion.number], _STATES[suggestion.state]
        self.study.tell(number, self._values(suggestion), state)

    def _values(self, suggestion: Suggestion) -> list[float] | None:
        complete = suggestion.state == names.COMPLETE
        return suggestion.values(self.search.settings) if complete else None

    def _reconcile(self) -> None:
        """Brings the database up to the record.

        What Optuna believes to be running and no record knows of was killed before it was kept: it
        is told to have failed.
        """
        unended: set[int] = set()
        for trial in self.study.get_trials(deepcopy=False):
            number, ended = trial.user_attrs.get(NUMBER), trial.state.is_finished()
            if number is not None and number < len(self.search.suggestions):
                self._numbers[number] = trial.number
                unended |= set() if ended else {number}
            elif not ended:
                self.study.tell(trial.number, state=TrialState.FAIL)
        for suggestion in self.search.suggestions:
            if suggestion.number not in self._numbers:
                self._numbers[suggestion.number] = self._added(suggestion)
            elif suggestion.state != names.OPEN and suggestion.number in unended:
                self.tell(suggestion)  # which a crash kept from it

    def _added(self, suggestion: Suggestion) -> int:
        """Puts a suggestion into a database that has lost it."""
        chosen = {key: axis for key, axis in self.search.axes.items() if key in suggestion.axes}
        spread = {key: distribution(axis) for key, axis in chosen.items()}
        self.study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[suggestion.state],
                values=self._values(suggestion),
                params={key: suggestion.axes[key] for key in spread},
                distributions=spread,
                user_attrs={NUMBER: suggestion.number},
            )
        )
        return len(self.study.get_trials(deepcopy=False)) - 1


def distribution(axis: Axis) -> BaseDistribution:
    """An axis as Optuna has it: choices at equal distances are numbers in an order."""
    if isinstance(axis, Range):
        if axis.whole:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    step = _step(axis)
    if step is None:
        return CategoricalDistribution(axis)
    return FloatDistribution(float(axis[0]), float(axis[-1]), step=step)


def _step(choices: tuple[Any, ...]) -> float | None:
    """The distance between neighbours, if it is one and they rise."""
    if len(choices) < 3 or any(type(choice) not in (int, float) for choice in choices):
        return None
    step = (choices[-1] - choices[0]) / (len(choices) - 1)
    near = (math.isclose(b - a, step, rel_tol=1e-6) for a, b in pairwise(choices))
    return step if step > 0 and all(near) else None


def _picking(trial: OptunaTrial, axes: dict[str, Any]) -> Any:
    def pick(key: str, axis: Axis) -> Any:
        axes[key] = _rounded(_suggested(trial, key, distribution(axis)), axis)
        return axes[key]

    return pick


def _suggested(trial: OptunaTrial, key: str, spread: BaseDistribution) -> Any:
    if isinstance(spread, FloatDistribution):
        return trial.suggest_float(key, spread.low, spread.high, step=spread.step, log=spread.log)
    if isinstance(spread, IntDistribution):
        return trial.suggest_int(key, spread.low, spread.high, log=spread.log)
    assert isinstance(spread, CategoricalDistribution)
    return trial.suggest_categorical(key, spread.choices)


def _rounded(value: Any, axis: Axis) -> Any:
    """A number of a range to six digits, so that what is shown can be typed; a choice itself."""
    if isinstance(axis, Range):
        if axis.whole:
            return int(value)
        return min(max(float(f"{value:.6g}"), axis.low), axis.high)
    if _step(axis) is not None:
        return min(axis, key=lambda choice: abs(choice - value))
    return value


def _sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for one suggestion; what it has learnt is in the database."""
    seed = derive(settings.seed, "search", number) % 2**32
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `multivariate` is experimental
        if settings.sampler == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        if settings.sampler == "gp":
            return samplers.GPSampler(seed=seed)
        if settings.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if settings.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=_population(settings))
        return samplers.RandomSampler(seed=seed)


def _population(settings: Settings) -> int:
    """A fifth of the budget a generation, from 8 to Optuna's own 50."""
    trials = settings.trials if isinstance(settings.trials, int) else 50
    return min(max(trials // 5, 8), 50)
