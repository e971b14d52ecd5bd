"""What a cluster is sent of a study: its files by themselves, and the checkpoints they name."""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from study.files import StudyFile, standalone
from study.planned import Plan
from trainables.errors import BadOption


def write_sent(file: StudyFile, plan: Plan, folder: Path) -> str:
    """Writes it to a folder.

    Args:
        file: the study.
        plan: of it.
        folder: an empty one.

    Returns:
        The name of the leading file.

    Raises:
        BadOption: the study names what cannot be sent.
    """
    _check_packages(plan)
    files = standalone(file)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for part in (file, *file.parts):
        for name in _checkpoints(part):
            _copy(name, part.folder, folder)
    return next(iter(files))


def _copy(name: str, source: Path, target: Path) -> None:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise BadOption(
            f"cannot send the checkpoint {name!r} to the cluster: expected a path beside the study "
            "file, or below"
        )
    data, place = (source / path).read_bytes(), target / path
    if place.exists() and place.read_bytes() != data:
        raise BadOption(f"cannot send the study: two of its parts have a {name!r}, not the same")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def _checkpoints(file: StudyFile) -> Iterator[str]:
    """The names of a file's checkpoints, as written."""
    for method in (file.data.get("methods") or {}).values():
        found = method.get("checkpoint") if isinstance(method, dict) else None
        yield from [found] if isinstance(found, str) else found or []


def _check_packages(plan: Plan) -> None:
    """Whether all packages are installed: one on this machine's PYTHONPATH is on no other."""
    installed = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    backbones = {trial.model.backbone.name for trial in plan.trials}
    networks = {name.partition(":")[0] for name in backbones if ":" in name}
    for module in sorted({*plan.plugins, *networks}):
        spec = importlib.util.find_spec(module.partition(".")[0])
        place = Path(spec.origin) if spec is not None and spec.origin else Path()
        if not any(place.is_relative_to(path) for path in installed):
            raise BadOption(
                f"cannot send the package {module!r} to the cluster: expected one that is "
                "installed, here and on its machines: add it to `setup_commands` of the cluster's "
                "file, and its folder to `file_mounts`"
            )
