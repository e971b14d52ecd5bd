"""The same done to many things by as many processes as there are processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import joblib

Task = TypeVar("Task")
Found = TypeVar("Found")

_FEW = 4  # of so many, starting processes (two seconds) would take most of the time
_MOST = 8  # processes: each has libraries of 200 MB in memory


def parallel(function: Callable[[Task], Found], tasks: Sequence[Task]) -> list[Found]:
    """What a function makes of each task, in their order; a few are done right here.

    Processes are joblib's: started once, used again by later calls, and gone with this one.

    Args:
        function: of what stands in a module, or of nothing but its arguments.
        tasks: each is sent to a process as a whole.
    """
    workers = min(joblib.cpu_count(), len(tasks), _MOST)
    if workers == 1 or len(tasks) <= _FEW:
        return [function(task) for task in tasks]
    found = joblib.Parallel(n_jobs=workers, max_nbytes=None)(
        joblib.delayed(function)(task) for task in tasks
    )
    return list(found)
