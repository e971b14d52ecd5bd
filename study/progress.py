"""What a run shows of itself: a live display in a terminal, log lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.planned import PlannedTrial
from study.search import Search
from study.tracking import Summary
from trainables.trial import Report

RECENT = 5  # finished trials that the live display keeps in sight


class Display:
    """Counts trials done, running, failed and left, and says when it will be over."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = 0
        self.ahead = 0  # trials that have not ended
        self._ended_now: set[str] = set()  # each counts once
        self.failures = 0
        self.running: dict[str, tuple[PlannedTrial, float, str]] = {}
        self.recent: list[Text] = []
        self._began: float | None = None
        self._work = 0  # trials that this run has to do
        self._finished_here = 0
        self._live: Live | None = None

    def expect(self, total: int) -> None:
        """How many trials the study has."""
        self.total = total
        self._begin(total)

    @property
    def done(self) -> int:
        """How many trials have ended, in this run or before."""
        return self.total - self.ahead

    def _begin(self, ahead: int) -> None:
        self.ahead = ahead
        self._ended_now = set()

    def start(self, left: Sequence[PlannedTrial]) -> None:
        """Says what there is to do."""
        self._work = self._finished_here + len(left)
        self._begin(len(left))
        self.say(f"{len(left)} of {self.total} trials to run, {self.done} done already")
        self._show()

    def _show(self) -> None:
        if self.console.is_terminal and self._live is None:
            self._live = Live(get_renderable=self._render, console=self.console)
            self._live.start()

    def search(self, search: Search) -> None:
        """Says what a search has to do."""
        left = search.left + len(search.open)
        self._work = self._finished_here + left
        self.total += search.left  # what was suggested is planned
        self._begin(left)
        how = f"{search.settings.sampler}, {search.budget} suggestions, {left} of them to try"
        self.say(f"searching {search.method} on {search.place}: {how}")
        self._show()

    def stop(self) -> None:
        """Ends the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """One line, above the live display if there is one."""
        self.console.print(Text(line), soft_wrap=True)

    def started(self, trial: PlannedTrial) -> None:
        """A worker has taken a trial up."""
        if self._began is None:
            self._began = time.monotonic()
        self.running[trial.id] = (trial, 0.0, "starting")

    def reported(self, report: Report) -> None:
        """A step of a trial has ended."""
        trial, *_ = self.running[report.trial_id]
        epochs, cells = trial.model.epochs, len(trial.job().cells)
        trained = report.epoch / epochs if epochs else 1.0
        share = (trained + report.cells / cells) / 2
        state = f"cell {report.cells}/{cells}"
        if epochs:
            state = f"epoch {report.epoch}/{epochs}, {state}"
        if report.epochs:
            state += f", validation {100 * report.epochs[-1]['validation_accuracy']:.1f} %"
        self.running[trial.id] = (trial, share, state)

    def finished(self, trial: PlannedTrial, summary: Summary) -> None:
        """A trial's results are in."""
        accuracies = f"clean {100 * summary.clean:.1f} %, robust {100 * summary.robust:.1f} %"
        where = " (validation)" if trial.candidate else ""
        self._ended(trial)
        self._tell(Text(f"{trial.name}: {accuracies}{where}"))

    def lost(self, trial: PlannedTrial, reason: str) -> None:
        """A trial has lost its worker."""
        self.running.pop(trial.id, None)
        self.say(f"{trial.name}: {reason}; it will be tried again")

    def waits(self, trial: PlannedTrial) -> None:
        """A trial has done all it can before another's model is trained."""
        self.running.pop(trial.id, None)

    def given_up(self, trial: PlannedTrial, why: int | str) -> None:
        """A search has given a training up, after an epoch or because it has diverged."""
        self._ended(trial)
        told = f"given up after epoch {why}" if isinstance(why, int) else why
        self._tell(Text(f"{trial.name}: {told}", style="dim"))

    def failed(self, trial: PlannedTrial, reason: str) -> None:
        """A trial has failed; the study goes on."""
        self.failures += 1
        self._ended(trial)
        self._tell(Text(f"{trial.name}: FAILED, {reason}", style="red"))

    def _ended(self, trial: PlannedTrial) -> None:
        if trial.id not in self._ended_now:
            self._ended_now.add(trial.id)
            self.ahead = max(self.ahead - 1, 0)
        if self.running.pop(trial.id, None) is not None:
            self._finished_here += 1

    def _tell(self, line: Text) -> None:
        if self._live is not None:
            self.recent = [*self.recent, line][-RECENT:]
        else:
            count = f"[{self.done}/{self.total}] "
            self.console.print(Text(count).append_text(line).append(self._eta()), soft_wrap=True)

    def _eta(self) -> str:
        share = self._finished_here + sum(share for _, share, _ in self.running.values())
        if self._began is None or share < 0.5:
            return ""
        left = (time.monotonic() - self._began) * max(self._work - share, 0) / share
        minutes, seconds = divmod(round(left), 60)
        return f", {minutes}:{seconds:02} left"

    @staticmethod
    def _bar(done: float, total: float) -> ProgressBar:
        return ProgressBar(total, done, width=24)

    def _render(self) -> RenderableType:
        left = max(self.ahead - len(self.running), 0)
        counts = f"{self.done} done, {len(self.running)} running, {self.failures} failed"
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("all trials", style="bold"), self._bar(self.done, self.total))
        for trial, share, state in self.running.values():
            table.add_row(Text(trial.name), self._bar(share, 1.0), Text(state))
        return Group(
            *self.recent,
            Text(f"{counts}, {left} waiting{self._eta()}", style="bold"),
            table,
        )
