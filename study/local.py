"""The very same trials in this process, one after another, for debugging."""

from __future__ import annotations

from collections.abc import Sequence

from study.listener import Listener
from study.plan import PlannedTrial
from study.site import Site
from trainables.execution import prepare
from trainables.packing import Pack, packs


def run_local(trials: Sequence[PlannedTrial], site: Site, listener: Listener) -> None:
    """Advances every trial to its end; failures are reported, not raised."""
    execution = prepare(**site.execution)
    for pack in packs(trials, site.store, site.resources.pack, slots=1):
        for trial in pack:
            listener.started(trial.id)
        life = Pack([trial.job() for trial in pack], site.store, execution, site.resources.pack)
        while not life.done:
            for report in life.advance():
                listener.reported(report)
