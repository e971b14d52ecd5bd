"""How to cite a study, and how to repeat it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.runs import Results

DISTRIBUTION = "robust-loss-study"
TITLE = "Robust Loss Study"

# As the text at hand has it; it names no authors.
PAPER = """\
@misc{isce,
  title = {Improving Robustness of Softmax Cross-Entropy Loss via Inference Information},
  author = {{Anonymous}},
  note = {A journal version is Mathematics 2022, 10(19), 3716},
}"""


def bibtex(study: str, study_file: str, git: str) -> str:
    """Entries for a study, which its file's digest identifies, and for the paper.

    Args:
        study: Its name; without one the entry is the software's own.
        study_file: The text of its file.
        git: The commit of the source.
    """
    digest = f", study file SHA-256 {_digest(study_file)}" if study else ""
    return "\n".join(
        [
            f"@software{{{_key(study or DISTRIBUTION)},",
            f"  title = {{{_escaped(f'{TITLE}: {study}' if study else TITLE)}}},",
            f"  version = {{{version(DISTRIBUTION)}}},",
            f"  note = {{Source {git}{digest}}},",
            "}",
            PAPER,
        ]
    )


def sentence(study: str, study_file: str, git: str) -> str:
    """The same in words, for a text; arguments as of `bibtex`."""
    of = f", study {study} (file SHA-256 {_digest(study_file)})" if study else ""
    return f"{TITLE} {version(DISTRIBUTION)}, source {git}{of}."


def repeat(results: Results, command: str) -> str:
    """The commands that give the same numbers again, and this page.

    Args:
        results: The study.
        command: How the report was asked for.
    """
    git = results.plan.provenance.get("git", "").removesuffix("-dirty")
    at = [f"git checkout {git}"] if git not in ("", "unknown") else []
    return "\n".join([*at, "make env", results.plan.command, command])


def _digest(study_file: str) -> str:
    return hashlib.sha256(study_file.encode()).hexdigest()[:16]


def _key(study: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in study)


def _escaped(text: str) -> str:
    """What a study may be called, in a field of BibTeX."""
    return text.replace("_", r"\_")
