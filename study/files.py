"""Study files: where they are, what they extend and unite, and the scale they are run at.

Free of torch, so that `study list`, `report` and `ui` start at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from study.loader import dump_yaml, kind_of, load_yaml
from study.overlay import merged, overridden, with_keys
from trainables.errors import InvalidStudy, Mistake, StudyError, nearest

PRESETS = Path(__file__).parent / "presets"
BASES = PRESETS / "bases"  # what presets extend, no studies of their own
FULL = "full"  # the scale at which nothing is laid over a file


class StudyFileNotFound(StudyError, FileNotFoundError):
    """Neither a file nor a preset goes by that name."""


class CannotWrite(StudyError, OSError):
    """A file that is there already, or cannot be made."""


@dataclass(frozen=True)
class StudyFile:
    """A study file as read, with what it extends and its scale laid over each other.

    Attributes:
        source: what the user called it.
        text: the file's text, and below it that of every file it extends or unites.
        data: its content, with numbers as numbers and overrides applied; what was taken away is
            `loader.GONE`.
        overrides: what was set by hand.
        scale: the overlay that was taken.
        parts: the studies that it unites; empty for a study of its own.
        folder: where the file lies, and what it names by a relative path.
        plain: its content over what it extends, before its scale and its overrides.
    """

    source: str
    text: str
    data: dict[str, Any]
    overrides: tuple[str, ...] = ()
    scale: str = FULL
    parts: tuple[StudyFile, ...] = ()
    folder: Path = Path()
    plain: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The study's name, and its scale's where it is reduced: `table1@small`.

        Raises:
            InvalidStudy: the file gives none.
        """
        try:
            name = study_name(self.data.get("study"))
        except ValueError as error:
            raise InvalidStudy(self.source, [Mistake("study", str(error))]) from None
        return name if self.scale == FULL else f"{name}@{self.scale}"

    @property
    def figures(self) -> list[str]:
        """The figures of formulas that it draws, a union those of its parts."""
        own = self.data.get("figures") or []
        named = [own] if isinstance(own, str) else list(own)
        return list(
            dict.fromkeys([*named, *(name for part in self.parts for name in part.figures)])
        )

    @property
    def question(self) -> str:
        """What the study asks; may be empty."""
        return str(self.data.get("question") or "")


def study_name(value: Any) -> str:
    """The name itself; it names folders, an experiment and a lock, so it is kept plain.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        return value
    raise ValueError(f"expected a name of letters, digits, `-`, `_` and `.`, found {value!r}")


def presets() -> dict[str, Path]:
    """All presets by name."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}


def write_copy(preset: str, path: Path) -> None:
    """Writes a preset's text to a file, as a study of that file's name.

    Raises:
        StudyFileNotFound: no such preset.
        CannotWrite: the file is there already, or cannot be made.
        InvalidStudy: its name is none for a study.
    """
    if preset not in presets():
        hint = nearest(preset, presets())
        raise StudyFileNotFound(f"no preset {preset!r}{hint} (presets: {', '.join(presets())})")
    try:
        name = study_name(path.stem)
    except ValueError as error:
        raise InvalidStudy(str(path), [Mistake("the file's name", str(error))]) from None
    text = re.sub("^study: .*$", f"study: {name}", _read(preset, presets()[preset]), flags=re.M)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(f"cannot write {str(path)!r}: {error.strerror}") from None


def read_study(source: str, overrides: Iterable[str] = (), scale: str = FULL) -> StudyFile:
    """Reads a preset by name or a file by path.

    What a file `extends` comes first, one file or several, its own keys over them; then its
    scale, then the overrides.
    A file that is a `union` of others has each of them, at the same scale, as a part.

    Args:
        source: a preset's name, or the path of a YAML file.
        overrides: `key.key=value`, each value read as YAML.
        scale: one of the file's `scales`, or `full`.

    Raises:
        StudyFileNotFound: there is neither; lists the presets.
        InvalidStudy: not YAML, not a mapping, a key twice, a malformed override, no such scale.
    """
    path = presets().get(source, Path(source))
    data, texts = _extended(source, path, ())
    plain = data
    mistakes: list[Mistake] = []
    parts: tuple[StudyFile, ...] = ()
    if "union" in data:
        parts = _united(source, path, data, tuple(overrides), scale, mistakes)
        data = {key: value for key, value in data.items() if key not in ("union", "scales")}
        texts += [f"---\n# {part.source}, a part of it:\n{part.text}" for part in parts]
    else:
        data = _scaled(data, scale, mistakes)
    data = overridden(data, overrides, mistakes)
    if mistakes:
        raise InvalidStudy(source, mistakes)
    folder, text = path.absolute().parent, "\n".join(texts)
    return StudyFile(source, text, data, tuple(overrides), scale, parts, folder, plain)


def standalone(file: StudyFile) -> dict[str, str]:
    """A study's files by name, the leading one first, which say all that it says by themselves.

    They extend nothing and name no preset, and so mean the same with another version's presets;
    read with the same overrides and scale they are the same study. What people wrote stands
    below as a comment.
    """
    name = study_name(file.data.get("study"))
    parts = {f"{name}.{number}.yaml": part for number, part in enumerate(file.parts, start=1)}
    own = {**file.plain, "union": list(parts)} if parts else file.plain
    written = {f"{name}.yaml": (own, file.text)}
    written |= {key: (part.plain, part.text) for key, part in parts.items()}
    return {
        key: f"{dump_yaml(data)}\n# As it was written:\n{indent(text, '# ', lambda _: True)}\n"
        for key, (data, text) in written.items()
    }


def scales(source: str) -> list[str]:
    """The scales that a study can be run at, `full` first; of a union those that all parts have.

    Raises:
        StudyFileNotFound, InvalidStudy: as `read_study`.
    """
    path = presets().get(source, Path(source))
    data, _ = _extended(source, path, ())
    if "union" not in data:
        return [FULL, *(data.get("scales") or {})]
    named = [_named(source, "union", part, path) for part in data["union"]]
    # What trains nothing is the same at any.
    parts = [part for part in named if "figures" not in _extended(source, part, ())[0]]
    offered = [scales(str(part)) for part in parts]
    return [FULL, *(name for name in (offered or [[]])[0][1:] if all(name in o for o in offered))]


def _extended(source: str, path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], list[str]]:
    """A file over what it extends, and the texts of all of them, its own first."""
    text = _read(source, path)
    data = _parse(source, text)
    bases = data.pop("extends", None) or []
    inherited: dict[str, Any] = {}
    texts = [text]
    for base in bases if isinstance(bases, list) else [bases]:
        found = _named(source, "extends", base, path)
        if found in (path, *below):
            raise InvalidStudy(source, [Mistake("extends", f"{base!r} extends itself")])
        its_data, its_texts = _extended(str(base), found, (*below, path))
        inherited = merged(inherited, its_data)
        texts += [f"---\n# {base}, which it extends:", *its_texts]
    return merged(inherited, data), texts


def _united(
    source: str,
    path: Path,
    data: Mapping[str, Any],
    overrides: tuple[str, ...],
    scale: str,
    mistakes: list[Mistake],
) -> tuple[StudyFile, ...]:
    """The studies that a file unites."""
    named = data["union"]
    if not isinstance(named, list) or not named:
        mistakes.append(Mistake("union", f"expected a list of studies, found {kind_of(named)}"))
        return ()
    of_study = [item for item in overrides if item.partition("=")[0] not in ("study", "question")]
    parts = []
    for number, name in enumerate(named):
        found = _named(source, f"union.{number}", name, path)
        part = read_study(name if name in presets() else str(found), of_study, scale)
        if part.parts:
            mistakes.append(Mistake(f"union.{number}", f"{name!r} is a union itself"))
        parts.append(part)
    return tuple(parts)


def _named(source: str, where: str, name: Any, path: Path) -> Path:
    """The file that another one names: a preset, a base of theirs, or one beside it."""
    known = {**{base.stem: base for base in sorted(BASES.glob("*.yaml"))}, **presets()}
    beside = path.parent / str(name)
    if isinstance(name, str) and name in known:
        return known[name]
    if isinstance(name, str) and beside.is_file():
        return beside.resolve()
    hint = nearest(str(name), known)
    what = f"expected a preset or a file beside this one, found {name!r}{hint}"
    raise InvalidStudy(source, [Mistake(where, what)])


def _scaled(data: dict[str, Any], scale: str, mistakes: list[Mistake]) -> dict[str, Any]:
    """The scale's keys laid over a study's; what trains nothing is the same at any."""
    if "figures" in data:
        return data
    data = dict(data)
    scales = data.pop("scales", None) or {}
    if not isinstance(scales, dict):
        mistakes.append(Mistake("scales", f"expected keys by scale, found {kind_of(scales)}"))
    elif scale != FULL and scale not in scales:
        known = [FULL, *scales]
        what = f"no scale {scale!r} in this file{nearest(scale, known)}"
        mistakes.append(Mistake("--scale", f"{what} (there are: {', '.join(known)})"))
    elif not isinstance(scales.get(scale) or {}, dict):
        mistakes.append(Mistake(f"scales.{scale}", f"expected keys, found {scales[scale]!r}"))
    else:
        data = with_keys(data, scales.get(scale) or {})
    return data


def _read(source: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise StudyFileNotFound(f"{source!r} is no text file (expected YAML in UTF-8)") from None
    except OSError as error:
        known = ", ".join(presets())
        hint = nearest(source, presets())
        raise StudyFileNotFound(
            f"no study file {source!r} ({type(error).__name__}) and no preset of that name{hint} "
            f"(presets: {known})"
        ) from None


def _parse(source: str, text: str) -> dict[str, Any]:
    mistakes: list[Mistake] = []
    data = load_yaml(text, "", mistakes)
    if not mistakes and not isinstance(data, dict):
        mistakes.append(Mistake("", f"expected a mapping of keys, found {kind_of(data)}"))
    if mistakes:
        raise InvalidStudy(source, mistakes)
    result: dict[str, Any] = data
    return result
