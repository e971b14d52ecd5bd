from __future__ import annotations

import inspect

import pytest

from trainables import errors
from trainables.errors import InvalidStudy, Mistake, StudyError, UnknownName, nearest


def test_every_error_is_a_study_error_with_a_builtin_parent():
    found = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and cls is not StudyError
    ]
    assert len(found) >= 8
    for cls in found:
        assert issubclass(cls, StudyError)
        assert any(base.__module__ == "builtins" for base in cls.__bases__), cls
    assert StudyError.exit_status == 2


def test_unknown_name_lists_all_names_and_suggests_the_nearest():
    message = str(UnknownName("loss", "issce", ["sce", "isce", "arcface"]))
    assert message == "unknown loss 'issce'; did you mean 'isce'? (known: arcface, isce, sce)"


def test_nothing_near_suggests_nothing():
    assert nearest("qqq", ["sce", "isce"]) == ""
    assert str(UnknownName("loss", "qqq", [])) == "unknown loss 'qqq' (known: none)"


@pytest.mark.parametrize(("n", "count"), [(1, "1 mistake,"), (2, "2 mistakes,")])
def test_invalid_study_tells_all_mistakes_at_once(n, count):
    mistakes = [Mistake(f"methods.{i}", f"wrong {i}") for i in range(n)]
    error = InvalidStudy("study.yaml", mistakes)
    assert f"study.yaml: {count}" in str(error)
    assert all(f"methods.{i}: wrong {i}" in str(error) for i in range(n))
    assert error.mistakes == tuple(mistakes)


def test_mistake_without_a_place_is_told_plainly():
    assert str(Mistake("", "empty file")) == "empty file"
