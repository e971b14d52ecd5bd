"""A `ray up` cluster, reached by ssh from the machine that it was started on.

Whatever goes there goes through Ray's own commands, which know the head's address, user and key.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trainables.errors import NoCluster

HOME = "study"  # folder in the head's home from which studies are run
DASHBOARD, MLFLOW, OPTUNA = 8265, 5000, 8080  # ports on the head's loopback
_PATIENCE = 60.0  # seconds that a connection may take


class Cluster:
    """A cluster that `ray up FILE` has started.

    Args:
        file: its configuration.

    Raises:
        NoCluster: there is no such file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise NoCluster(
                f"no cluster file {str(file)!r}: name one with --cluster, such as "
                "cluster.local.yaml, and start it with `ray up`"
            )

    @contextlib.contextmanager
    def reach(self, port: int, wanted: int | None = None) -> Iterator[int]:
        """A port of the head's loopback on this machine's.

        Args:
            port: on the head.
            wanted: here; any that is free if it is not given, or taken.

        Raises:
            NoCluster: the head does not answer.
        """
        here = _free(wanted)
        words = ["dashboard", str(self.file), "--port", str(here), "--remote-port", str(port)]
        with tempfile.TemporaryFile() as said:
            tunnel = subprocess.Popen(
                _ray(*words),
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                if not _wait_for(tunnel, here):
                    said.seek(0)
                    raise self._away(said.read().decode(errors="replace"))
                yield here
            finally:
                with contextlib.suppress(ProcessLookupError):  # its ssh too
                    os.killpg(tunnel.pid, signal.SIGTERM)
                tunnel.wait()

    def put(self, folder: Path, place: str) -> None:
        """Copies what is in a folder to one in the head's home.

        Raises:
            NoCluster: the head does not answer.
        """
        self.run(f"mkdir -p ~/{place}")
        self._call("rsync-up", str(self.file), f"{folder}/", f"~/{place}/")

    def get(self, place: str, folder: Path) -> None:
        """Copies what is in a folder in the head's home to one here.

        Raises:
            NoCluster: the head does not answer, or has no such folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._call("rsync-down", str(self.file), f"~/{place}/", f"{folder}/")

    def run(self, command: str) -> str:
        """Runs a shell's command on the head; what it says, and Ray beside it.

        Raises:
            NoCluster: the head does not answer, or the command fails.
        """
        return self._call("exec", str(self.file), command)

    def start_optuna(self) -> int | None:
        """The head's port of optuna-dashboard, once it listens; None where nothing is searched.

        Raises:
            NoCluster: the head does not answer, or has no optuna-dashboard.
        """
        if "optuna.db" not in self.run(f"ls ~/{HOME}/results 2> /dev/null || true"):
            return None
        serve = f"optuna-dashboard sqlite:///results/optuna.db --host 127.0.0.1 --port {OPTUNA}"
        once = "setsid --fork flock --nonblock ~/optuna.lock"
        listens = f"until (exec 3<>/dev/tcp/127.0.0.1/{OPTUNA}) 2> /dev/null; do sleep 1; done"
        self.run(
            f". ~/study.env && cd ~/{HOME} && {once} {serve} < /dev/null >> ~/optuna.log 2>&1; "
            f"timeout 60 bash -c '{listens}' || (tail ~/optuna.log; false)"
        )
        return OPTUNA

    def _call(self, *words: str) -> str:
        called = subprocess.run(
            _ray(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if called.returncode:
            raise self._away(called.stdout)
        return called.stdout

    def _away(self, said: str) -> NoCluster:
        last = "\n".join(f"  {line}" for line in said.strip().splitlines()[-5:])
        return NoCluster(
            f"the cluster of {str(self.file)!r} cannot be reached: `ray up {self.file}` starts "
            f"it. Ray says:\n{last}"
        )


def _ray(*words: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", *words]


def _free(wanted: int | None) -> int:
    """A port of this machine's loopback that nobody listens on."""
    for port in (wanted or 0, 0):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
            return int(tried.getsockname()[1])
    raise NoCluster("no port of this machine is free")


def _wait_for(tunnel: subprocess.Popen[bytes], port: int) -> bool:
    """Until the tunnel takes connections; False where it has ended, or takes too long."""
    end = time.monotonic() + _PATIENCE
    while tunnel.poll() is None and time.monotonic() < end:
        if answers(port):
            return True
        time.sleep(0.1)
    return False


def answers(port: int) -> bool:
    """Whether anybody listens on a port of this machine's loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
