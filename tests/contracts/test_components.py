"""Identity and specification of every registered component."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from trainables import registry
from trainables.config import content_id

KINDS = [
    *("dataset", "backbone", "loss", "regime", "transform"),
    *("attack", "budget", "schedule", "diagnostic"),
]
# Values for parameters that have no default.
ON_SOURCE = {"name": "pgd", "eps": 0.1, "steps": 3}
REQUIRED = {"eps": 0.1, "steps": 3, "budget": "linf", "source": "sce", "using": ON_SOURCE}
COMPONENTS = [cls for kind in KINDS for cls in registry.every(kind)]
every_component = pytest.mark.parametrize(
    "cls", COMPONENTS, ids=lambda cls: f"{cls.kind}-{cls.name}"
)


def required(cls):
    return {
        field.name: REQUIRED[field.name]
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
    }


def made(cls):
    return cls(**required(cls))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_component(kind):
    assert registry.names(kind)


@every_component
def test_spec_round_trips_through_json_and_build(cls):
    component = made(cls)
    spec = json.loads(json.dumps(component.spec()))
    again = registry.build(cls.kind, spec)
    assert type(again) is cls
    assert again == component
    assert content_id(again.identity()) == content_id(component.identity())


@every_component
def test_is_frozen_and_hashable(cls):
    component = made(cls)
    assert hash(component) == hash(made(cls))
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(component, field.name, None)


@every_component
def test_identity_names_kind_revision_and_parameters(cls):
    identity = made(cls).identity()
    assert identity["component"] == f"{cls.kind}/{cls.name}"
    assert identity["revision"] == cls.revision >= 1
    fields = {field.name for field in dataclasses.fields(cls)}
    assert set(identity["parameters"]) <= fields
    assert fields - set(identity["parameters"]) <= set(cls.unhashed)


@every_component
def test_revision_reaches_the_id(cls, monkeypatch):
    component = made(cls)
    before = content_id(component.identity())
    monkeypatch.setattr(cls, "revision", cls.revision + 1)
    assert content_id(component.identity()) != before


@every_component
def test_repr_names_every_parameter(cls):
    text = repr(made(cls))
    assert all(f"{field.name}=" in text for field in dataclasses.fields(cls))


@every_component
def test_says_what_it_is(cls):
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # dataclass's own


def test_ids_do_not_depend_on_the_process():
    specs = [(cls.kind, cls.name, required(cls)) for cls in COMPONENTS]
    code = (
        "from trainables import registry\n"
        "from trainables.config import content_id\n"
        f"for kind, name, parameters in {specs}:\n"
        "    made = registry.build(kind, {'name': name, **parameters})\n"
        "    print(kind, name, content_id(made.identity()))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) == len(COMPONENTS)
    for cls, (*_, found) in zip(COMPONENTS, lines, strict=True):
        assert content_id(made(cls).identity()) == found
