"""The very same trials in this process, one after another, for debugging."""

from __future__ import annotations

from collections.abc import Sequence

from study.listener import Listener
from study.plan import PlannedTrial
from study.site import Site
from trainables.execution import prepare
from trainables.trial import Trial


def run_local(trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
    """Advances every trial to its end; failures are reported, not raised."""
    execution = prepare(**site.execution)
    for planned in trials:
        listener.started(planned.id)
        trial = Trial(planned.job(), site.store, execution)
        report = trial.advance()
        while not report.done:
            listener.reported(report)
            report = trial.advance()
        listener.reported(report)
