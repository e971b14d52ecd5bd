"""Every error that a user can meet, in one place.

A `StudyError` is the user's to mend: the command line prints it without a traceback and
exits with `exit_status`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class StudyError(Exception):
    """Base of all errors that are told in one message, without a traceback."""

    exit_status = 2


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a study file: the key it stands at, and what is wrong."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class InvalidStudy(StudyError, ValueError):
    """A study file that cannot be read or planned; carries all of its mistakes at once."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) != 1 else ''}"
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{source}: {count}, nothing was started\n{lines}")


class UnknownName(StudyError, LookupError):
    """A name that nothing is registered under; lists what there is and suggests the nearest."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], broken: Iterable[str] = ()
    ) -> None:
        super().__init__("; ".join([unknown_name(kind, name, known), *broken]))


class BadPlugin(StudyError, ImportError):
    """A package of the user's own components that cannot be imported."""


class BadCheckpoint(StudyError, ValueError):
    """A file of weights that cannot be read, or that has changed since it was."""


class UnknownLoss(StudyError, ValueError):
    """The training loss is asked for of a network that came without one."""


class BadAddress(StudyError, ValueError):
    """A place for results or runs that cannot be used."""


class StorageAway(StudyError, OSError):
    """The storage of results was away for longer than is waited; its argument says why."""

    exit_status = 75  # "try again" to sysexits.h, as when a run's time is over

    def __str__(self) -> str:
        return f"{self.args[0]}; what is finished is kept, the same command goes on from there"


class DamagedEntry(StudyError, OSError):
    """A store entry whose bytes are not those its manifest promises."""


class DamagedData(StudyError, OSError):
    """A data set whose checksum is not the published one."""


class MissingData(StudyError, FileNotFoundError):
    """A data set that is not on this machine and cannot be fetched."""


class BrokenInvariant(StudyError, RuntimeError):
    """A result that cannot be, such as a perturbation outside its budget: a bug of ours."""


class NonFiniteLoss(StudyError, ArithmeticError):
    """Training met a loss that is not a number, or infinite; retrying cannot help."""


class StudyIsRunning(StudyError, RuntimeError):
    """Another driver holds the study's lock."""


class BadOption(StudyError, ValueError):
    """An option, or what was asked for, that cannot be."""


class NoRoom(StudyError, ValueError):
    """A trial asks for more than any machine has."""


class NoCluster(StudyError, ConnectionError):
    """A cluster that is not up, or cannot be reached."""


class NotShared(StudyError, ValueError):
    """A machine does not see the results that another one writes."""

    @classmethod
    def by(cls, host: str, url: str, why: str) -> NotShared:
        """Says so of a host, and what can be done."""
        return cls(
            f"{host} does not see what the driver's machine writes to {url} ({why}). On more than "
            "one machine results need a folder that all of them see, such as of NFS, or an "
            "address such as s3://bucket/results: `--storage` or STUDY_STORAGE"
        )


class NothingToRefine(StudyError, LookupError):
    """A grid that is not measured, or none."""


class OverBudget(StudyError, ValueError):
    """A study that would take more time, or money, than it may."""


class BadBundle(StudyError, ValueError):
    """A file that is no whole bundle of a study's results."""


class Contradiction(StudyError, ValueError):
    """Results under one id that are not the same."""


class IncompleteStudy(StudyError, LookupError):
    """A study that lacks results which are asked for."""


class BadSample(StudyError, ValueError):
    """A size of a sample that is neither a share nor a number."""


class NothingKept(StudyError, LookupError):
    """Nothing says what is to be kept."""


class UnknownStudy(StudyError, LookupError):
    """A study that the store knows nothing of."""


class NothingTracked(StudyError, LookupError):
    """The tracking server knows no such study."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Says which name is unknown, which is nearest, and which there are."""
    names = sorted(known)
    return f"unknown {kind} {name!r}{nearest(name, names)} (known: {', '.join(names) or 'none'})"


def unknown_key(name: str, known: Iterable[str]) -> str:
    """Says that a key is unknown, which is nearest, and which may stand there."""
    names = list(known)
    return f"unknown key{nearest(name, names)} (valid: {', '.join(names)})"


def plainly(error: Any, known: Iterable[str]) -> str:
    """What one of pydantic's errors says is wrong, in our words.

    Args:
        error: as pydantic lists it.
        known: the keys that may stand where it was found.
    """
    kind, found = error["type"], error["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(str(error["loc"][-1]), known)
    if kind.startswith("missing"):
        return "missing"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = nearest(found, choices) if isinstance(found, str) else ""
        return f"expected {error['ctx']['expected']}, found {found!r}{hint}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    expected = re.sub("^Input should (be|have) ", "", error["msg"])
    expected = re.sub("a (valid )?dictionary", "a mapping of keys", expected)
    expected = re.sub(" or (an )?instance of .*$", "", expected)
    expected = re.sub("^(greater|less) than", r"a number \1 than", expected)
    return f"expected {expected}, found {found!r}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
