"""How to cite a study, and how to repeat it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from analysis.runs import Results

DISTRIBUTION = "robust-loss-study"

# As the text at hand has it; it names no authors.
PAPER = """\
@misc{isce,
  title = {Improving Robustness of Softmax Cross-Entropy Loss via Inference Information},
  author = {{Anonymous}},
  note = {A journal version is Mathematics 2022, 10(19), 3716},
}"""


def bibtex(results: Results) -> str:
    """Entries for the study, which its file's digest identifies, and for the paper."""
    digest = hashlib.sha256(results.study_file.encode()).hexdigest()[:16]
    git = results.plan.provenance.get("git", "unknown")
    return "\n".join(
        [
            f"@software{{{_key(results.plan.study)},",
            f"  title = {{Robust Loss Study: {_escaped(results.plan.study)}}},",
            f"  version = {{{version(DISTRIBUTION)}}},",
            f"  note = {{Source {git}, study file SHA-256 {digest}}},",
            "}",
            PAPER,
        ]
    )


def repeat(results: Results, command: str) -> str:
    """The commands that give the same numbers again, and this page.

    Args:
        results: The study.
        command: How the report was asked for.
    """
    git = results.plan.provenance.get("git", "").removesuffix("-dirty")
    at = [f"git checkout {git}"] if git not in ("", "unknown") else []
    return "\n".join([*at, "make env", results.plan.command, command])


def _key(study: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in study)


def _escaped(text: str) -> str:
    """What a study may be called, in a field of BibTeX."""
    return text.replace("_", r"\_")
