"""Studies as Ray jobs on a cluster's head, which go on when the laptop is closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp

from study.cluster import DASHBOARD, HOME, Cluster
from study.files import FULL, StudyFile
from study.planned import Plan
from study.sent import write_sent
from trainables.errors import NoCluster, StudyError, StudyIsRunning, UnknownStudy

os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported, which reads it once

from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

# It would tell of each connection.
logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)

_STUDY = "study"  # of a job's metadata
_RUNNING = (JobStatus.PENDING, JobStatus.RUNNING)
_PATIENCE, _PAUSE = 300.0, 5.0  # seconds for which a lost head is tried again, and between
# What Ray's client raises where a connection breaks, or the head takes another token.
_LOST = (RuntimeError, OSError, aiohttp.ClientError, RayError)
_LINES = 20  # that are shown of what a job has said before one looks


class Jobs:
    """The studies of a cluster.

    Args:
        cluster: whose head runs them.
        client: of the head.
    """

    def __init__(self, cluster: Cluster, client: JobSubmissionClient) -> None:
        self.cluster = cluster
        self.client = client

    def submit(self, file: StudyFile, plan: Plan) -> str:
        """Sends a study to the head and starts it there.

        Args:
            file: the study.
            plan: of it.

        Returns:
            The job's id.

        Raises:
            StudyIsRunning: it is being run there.
            NoCluster: the head does not answer.
            BadOption: it names files that cannot be sent.
        """
        if (job := self._last(file.name)) is not None and job.status in _RUNNING:
            raise StudyIsRunning(
                f"study {file.name!r} is being run on the cluster as {job.submission_id}; nothing "
                "was started. `--attach` follows it, `--cancel` ends it"
            )
        place = f"{HOME}/submitted/{_plain(file.name)}"
        with tempfile.TemporaryDirectory() as folder:
            leading = write_sent(file, plan, Path(folder))
            self.cluster.put(Path(folder), place)
        return str(
            self.client.submit_job(
                entrypoint=_entrypoint(f"{place.removeprefix(HOME + '/')}/{leading}", file),
                submission_id=f"{_plain(file.name)}-{time.strftime('%Y%m%d-%H%M%S')}",
                metadata={_STUDY: file.name},
            )
        )

    def find(self, study: str) -> str:
        """The id of the study's last job.

        Raises:
            UnknownStudy: there is none.
        """
        job = self._last(study)
        if job is None:
            raise UnknownStudy(f"study {study!r} was not submitted to this cluster since it is up")
        return str(job.submission_id)

    def require(self, job: str) -> None:
        """Makes sure that the head knows a job.

        Raises:
            UnknownStudy: it does not.
        """
        if all(one.submission_id != job for one in self.client.list_jobs()):
            raise UnknownStudy(
                f"the cluster's head knows nothing of {job}: it was started anew meanwhile. "
                "Submit the study again: the rest of it is done"
            )

    def cancel(self, study: str) -> bool:
        """Ends a study as Ctrl-C would; whether it was being run.

        Raises:
            UnknownStudy: it was not submitted.
        """
        job = self.find(study)
        if self.client.get_job_status(job) not in _RUNNING:
            return False
        self.client.stop_job(job)
        while self.client.get_job_status(job) in _RUNNING:
            time.sleep(0.5)
        return True

    def _last(self, study: str) -> JobDetails | None:
        jobs = [job for job in self.client.list_jobs() if (job.metadata or {}).get(_STUDY) == study]
        return max(jobs, key=lambda job: job.start_time or 0, default=None)


@contextlib.contextmanager
def jobs_on(cluster: Cluster) -> Iterator[Jobs]:
    """The jobs of a cluster, while it is connected to.

    Raises:
        NoCluster: its head does not answer.
    """
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # else they would lead
        os.environ.pop(name, None)
    with cluster.reach(DASHBOARD) as port:
        try:
            yield Jobs(cluster, JobSubmissionClient(f"http://127.0.0.1:{port}"))
        except StudyError:
            raise
        except _LOST as error:
            raise NoCluster(f"the head of {str(cluster.file)!r} does not answer: {error}") from None


def follow(cluster: Cluster, job: str, say: Callable[[str], None], *, again: bool = False) -> int:
    """Hands on what a job says until it ends, over as many connections as that takes.

    Args:
        cluster: whose head runs it.
        job: its id.
        say: takes pieces of text.
        again: only the last lines of what it has said already.

    Returns:
        Its exit status.

    Raises:
        NoCluster: the head does not answer for some time.
        UnknownStudy: it knows no such job: it was started anew meanwhile.
    """
    tail, lost = _Tail(job, say), None
    while True:
        try:
            with jobs_on(cluster) as jobs:
                jobs.require(job)
                if again:
                    tail.skip(jobs.client)
                again, lost = False, None
                return tail.follow(jobs.client)
        except NoCluster:
            if lost is None:
                lost = time.monotonic()
                say("the connection to the cluster was lost; trying again\n")
            if time.monotonic() - lost > _PATIENCE:
                raise
            time.sleep(_PAUSE)


class _Tail:
    """What a job says, told once.

    Args:
        job: its id.
        say: takes pieces of text.
    """

    def __init__(self, job: str, say: Callable[[str], None]) -> None:
        self.job = job
        self.say = say
        self.told = 0  # characters

    def skip(self, client: JobSubmissionClient) -> None:
        """Leaves out all but the last lines of what was said up to now."""
        said = client.get_job_logs(self.job)
        self.told = len(said)
        self.say("".join(said.splitlines(keepends=True)[-_LINES:]))

    def follow(self, client: JobSubmissionClient) -> int:
        """Its exit status, once it has ended."""
        while True:
            asyncio.run(self._listen(client))
            details = client.get_job_info(self.job)
            if details.status not in _RUNNING:
                return _exit_status(details, self.say)
            time.sleep(_PAUSE)  # whoever told of it is started anew

    async def _listen(self, client: JobSubmissionClient) -> None:
        """For as long as the connection stands; each begins with the first line."""
        seen = 0
        async for text in client.tail_job_logs(self.job):
            if new := text[max(self.told - seen, 0) :]:
                self.say(new)
            seen += len(text)
            self.told = max(self.told, seen)


def _exit_status(details: JobDetails, say: Callable[[str], None]) -> int:
    if details.driver_exit_code is None and details.status != JobStatus.SUCCEEDED:
        say(f"{details.status}: {details.message}\n")
        return 1
    return int(details.driver_exit_code or 0)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _entrypoint(path: str, file: StudyFile) -> str:
    """Runs a study in the head's folder, and draws a report of all that there is then."""
    words = [path, *(word for item in file.overrides for word in ("--set", item))]
    words += ["--scale", file.scale] if file.scale != FULL else []
    asked, report = shlex.join(words), shlex.quote(f"results/reports/{file.name}")
    both = f"study run {asked}; ran=$?; study report {asked}; exit $ran"
    return f"cd ~/{HOME} && rm -rf {report} && {{ {both}; }}"
