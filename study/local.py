"""The very same trials in this process, one after another, for debugging."""

from __future__ import annotations

from collections.abc import Sequence

from study.listener import Listener
from study.plan import PlannedTrial
from study.spec import Resources
from trainables.store import Store
from trainables.trial import Trial, prepare


def run_local(
    trials: Sequence[PlannedTrial], store: Store, resources: Resources, listener: Listener
) -> None:
    """Advances every trial to its end; failures are reported, not raised."""
    device = prepare(threads=resources.cpu, gpu=resources.gpu)
    for planned in trials:
        listener.started(planned.id)
        trial = Trial(planned.job(), store, device)
        report = trial.advance()
        while not report.done:
            listener.reported(report)
            report = trial.advance()
        listener.reported(report)
