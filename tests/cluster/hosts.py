"""Hosts of a laboratory on one machine: each a network namespace with an sshd of its own.

A host has its own processes, home, temporary folder, shared memory and writable copy of the
environment that the tests run in; `shared` is the one folder that all of them see, as a
laboratory's NFS. The machine itself is the laptop from which they are reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HOME = Path.home()  # of whoever runs the tests: a host has its own there

# What a host does before its sshd: everything that it writes is its own.
_BOOT = """
set -eu
mount --make-rprivate /
hostname "$NAME"
ip link set lo up
keep() {  # a folder in sight that lies below one which the host has of its own
  for own in "$HOME" /tmp; do case "$1" in "$own"/*)
    mkdir -p "$FOLDER$own${1#"$own"}"
    mount --bind "$1" "$FOLDER$own${1#"$own"}"
  esac; done
}
mkdir -p "$FOLDER$HOME" "$FOLDER/tmp" "$FOLDER/upper" "$FOLDER/work"
mount -t overlay overlay -o "lowerdir=$VENV,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$VENV"
keep "$VENV"
keep "$PYTHON_HOME"
mkdir -p "$FOLDER$HOME/venv"
mount --bind "$VENV" "$FOLDER$HOME/venv"
mount --bind "$SHARED" /mnt
mount -t tmpfs tmpfs /run
mkdir /run/sshd
cp -p "$FOLDER/sshd_config" "$KEY" "$KEY.pub" /run/
mount --rbind "$FOLDER$HOME" "$HOME"
mount --rbind "$FOLDER/tmp" /tmp
mount -t tmpfs -o size=1g tmpfs /dev/shm
cd /
exec /usr/sbin/sshd -D -e -f /run/sshd_config
"""


def why_not() -> str:
    """Why there can be no such hosts here; empty where there can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [name for name in ("ip", "unshare", "ssh", "ssh-keygen", "rsync") if not _there(name)]
    missing += [] if Path("/usr/sbin/sshd").exists() else ["sshd"]
    if missing:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(["unshare", "-m", "-n", "-p", "-f", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "needs namespaces"


def _there(name: str) -> bool:
    return shutil.which(name) is not None


@dataclass
class Host:
    """One host; it is up after `start`.

    Attributes:
        lab: whose it is.
        name: of the host, and of its folder.
        ip: its address.
    """

    lab: Lab
    name: str
    ip: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.lab.folder / self.name

    @property
    def home(self) -> Path:
        """Its home folder, as the machine sees it."""
        return self.folder / str(HOME).lstrip("/")

    @property
    def _space(self) -> str:
        return f"{self.lab.name}-{self.name}"

    @property
    def _link(self) -> str:
        return f"{self.lab.name}{self.name}"

    @property
    def _card(self) -> str:
        return "02:00:" + ":".join(f"{int(part):02x}" for part in self.ip.split("."))

    def start(self) -> None:
        """Boots it, and waits until its sshd listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _ip("netns", "add", self._space)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        _ip("link", "set", self._link, "master", self.lab.name, "up")
        for words in (
            # Its card is the same after each boot, or its neighbours would ask for the old one.
            ("link", "set", "eth0", "address", self._card),
            ("addr", "add", f"{self.ip}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", self.lab.ip),  # by which Ray finds its address
        ):
            _ip("-n", self._space, *words)
        (self.folder / "sshd_config").write_text(
            f"ListenAddress {self.ip}\nHostKey /run/key\nAuthorizedKeysFile /run/key.pub\n"
            "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "PidFile none\nMaxStartups 100\n"
        )
        unshare = ["unshare", "-m", "-p", "-u", "-i", "-f", "--kill-child", "--mount-proc"]
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._space, *unshare, "sh", "-c", _BOOT],
                env={
                    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                    "HOME": str(HOME),
                    "NAME": self.name,
                    "FOLDER": str(self.folder),
                    "VENV": sys.prefix,
                    "PYTHON_HOME": sys.base_prefix,
                    "SHARED": str(self.lab.shared),
                    "KEY": str(self.lab.key),
                },
                stdout=log,
                stderr=log,
            )
        until(lambda: self.run("true", check=False).returncode == 0, "its sshd", seconds=20)

    def kill(self) -> None:
        """Takes its power away: nobody is told, not even by a closed connection."""
        self.cut()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        subprocess.run(["ip", "netns", "del", self._space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)

    def cut(self) -> None:
        """Pulls its cable."""
        subprocess.run(["ip", "link", "set", self._link, "down"], capture_output=True)

    def join(self) -> None:
        """Plugs it in again."""
        _ip("link", "set", self._link, "up")

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command over ssh."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"]
        words = ["ssh", "-i", str(self.lab.key), *options, f"root@{self.ip}", command]
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=120)

    def copy(self, file: Path, place: str) -> None:
        """Puts a file into its home folder."""
        shutil.copyfile(file, self.home / place)


@dataclass
class Lab:
    """A network of hosts, reached from this machine.

    Args:
        folder: for all that they write.
        names: of the hosts.
        room: on the storage that they share, as `mount` takes it.
    """

    folder: Path
    names: Sequence[str]
    room: str
    hosts: dict[str, Host] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = f"rls{os.getpid() % 100000}"
        self._net = f"10.213.{os.getpid() % 250}"
        self.ip = f"{self._net}.1"
        self.shared = self.folder / "shared"
        self.key = self.folder / "key"
        for number, name in enumerate(self.names, start=2):
            self.hosts[name] = Host(self, name, f"{self._net}.{number}")

    def __enter__(self) -> Lab:
        self.shared.mkdir(parents=True, exist_ok=True)
        size = f"size={self.room}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", self.shared], check=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(words, check=True)
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.ip}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        for host in self.hosts.values():
            host.start()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.kill()
        subprocess.run(["ip", "link", "del", self.name], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", self.shared], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def until(true, what: str, seconds: float = 60.0, every: float = 0.5) -> None:
    """Waits for something that is to come true, and fails where it does not."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
