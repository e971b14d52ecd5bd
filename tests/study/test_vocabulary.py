"""What `study describe` says of components."""

import dataclasses

import pytest

from study.vocabulary import describe, describe_all
from trainables import registry
from trainables.errors import UnknownName

EVERY = [(kind, name) for kind in registry.kinds() for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=" ".join)
def test_every_component_is_told_with_each_parameter_as_it_is_made(kind, name):
    cls = registry.find(kind, name)
    told = describe(name)
    assert f"{kind} {name} (revision {cls.revision}, {cls.__module__})" in told
    assert cls.__doc__.strip().splitlines()[0] in told
    for field in dataclasses.fields(cls):
        assert f"\n  {field.name}: " in told
    assert "PydanticUndefined" not in told
    assert "MISSING" not in told


def test_defaults_are_as_a_study_file_says_them():
    told = describe("isce")
    assert "  s: by default 1.0\n  m: by default 0.1\n  normalize: by default 'logits'" in told
    assert "  eps: to be given" in describe("pgd")
    assert "  budget: by default {'name': 'l2_rms'}" in describe("pgd")


def test_all_of_them_stand_under_their_kind():
    paragraphs = [paragraph.splitlines() for paragraph in describe_all().split("\n\n")]
    assert [(kind, line.split()[0]) for kind, *lines in paragraphs for line in lines] == EVERY
    assert all(len(line.split()) > 1 for _, *lines in paragraphs for line in lines)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'isce'"):
        describe("iscee")
