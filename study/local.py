"""The very same trials in this process, one after another, for debugging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.listener import Listener
from study.planned import PlannedTrial
from study.site import Site
from trainables.execution import prepare
from trainables.packing import Pack, packs
from trainables.training import watched
from trainables.trial import Trial

if TYPE_CHECKING:
    from study.searching import Searching  # and Optuna, which takes a second to import


class Local:
    """Runs trials here."""

    def run(self, trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
        """Advances every trial to its end; failures are reported, not raised."""
        execution = prepare(**site.alone)
        for pack in packs(trials, site.store, site.resources.pack, slots=1):
            for trial in pack:
                listener.started(trial.id)
            life = Pack([trial.job() for trial in pack], site.store, execution, site.resources.pack)
            while not life.done:
                for report in life.advance():
                    listener.reported(report)

    def search(self, searching: Searching, site: Site) -> None:
        """Does so with what a search suggests, until it has no more or gives it up."""
        from study.launch import Known, stop_rule  # Tune's rules, without a Ray

        execution, rule = prepare(**site.alone), stop_rule(searching)
        while (planned := searching.next()) is not None:
            trial = Trial(planned.job(), site.store, execution)
            searching.started(planned.id)
            known = Known(planned.id)
            rule.on_trial_add(None, known)
            report = trial.advance(seconds=0.0)
            while not report.done:
                searching.reported(report)
                told = {"epoch": report.epoch, "accuracy": watched(trial.record["history"][-1])}
                if rule.on_trial_result(None, known, told) == rule.STOP:
                    searching.stopped(planned.id, report.epoch)
                    break
                report = trial.advance(seconds=0.0)
            else:
                searching.reported(report)
