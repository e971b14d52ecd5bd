from __future__ import annotations

import importlib
import sys
from typing import ClassVar

import pytest
from pydantic import ValidationError

from trainables import registry
from trainables.config import content_id
from trainables.errors import BadPlugin, UnknownName
from trainables.losses.isce import ISCE
from trainables.registry import Component, component


@pytest.fixture
def scratch(monkeypatch):
    """A registry of the test's own, so that the real one is left as it was."""
    real = {kind: dict(components) for kind, components in registry._components.items()}
    monkeypatch.setattr(registry, "_components", real)


class Toy(Component):
    kind: ClassVar[str] = "toy"


def toy(name="plain", revision=1, module=__name__, **namespace):
    annotations = {field: float for field in namespace if not field.startswith("un")}
    body = {"__annotations__": annotations, "__module__": module, **namespace}
    return component(name, revision=revision)(type("Made", (Toy,), body))


def test_names_are_sorted_and_found_without_importing_them_first():
    assert registry.names("loss") == tuple(sorted(registry.names("loss")))
    assert {"sce", "isce"} <= set(registry.names("loss"))
    assert {"pgd", "deepfool", "clean"} <= set(registry.names("attack"))


def test_unknown_component_lists_the_names_and_suggests():
    with pytest.raises(UnknownName, match=r"unknown loss 'isse'; did you mean '(isce|sce)'") as e:
        registry.find("loss", "isse")
    assert all(name in str(e.value) for name in registry.names("loss"))


@pytest.mark.parametrize("name", [None, 3, ["sce"], {"a": 1}])
def test_name_that_is_no_text_is_unknown_too(name):
    with pytest.raises(UnknownName):
        registry.find("loss", name)


def test_unknown_kind_is_told():
    with pytest.raises(UnknownName, match="unknown los 'sce'"):
        registry.find("los", "sce")


def test_build_takes_a_name_or_a_specification():
    assert registry.build("loss", "isce") == ISCE()
    assert registry.build("loss", {"name": "isce", "s": 2.0}) == ISCE(s=2.0)


def test_build_leaves_the_specification_as_it_was():
    spec = {"name": "isce", "s": 2.0}
    registry.build("loss", spec)
    assert spec == {"name": "isce", "s": 2.0}


def test_build_tells_all_wrong_parameters_at_once():
    with pytest.raises(ValidationError) as error:
        registry.build("loss", {"name": "isce", "s": 0.5, "m": -1.0, "margin": 3})
    assert {item["loc"][-1] for item in error.value.errors()} == {"s", "m", "margin"}


def test_numbers_are_not_guessed_from_text():
    with pytest.raises(ValidationError):
        ISCE(s="2")
    with pytest.raises(ValidationError):
        ISCE(s=True)
    assert ISCE(s=2) == ISCE(s=2.0)


def test_two_modules_may_not_share_a_name(scratch):
    toy()
    with pytest.raises(ValueError, match="two components of kind 'toy' are named 'plain'"):
        toy(module="elsewhere")


def test_one_module_may_not_use_a_name_twice(scratch):
    def another():
        class Another(Toy):
            pass

        return component("plain", revision=1)(Another)

    toy()
    with pytest.raises(ValueError, match="two components of kind 'toy' are named 'plain'"):
        another()


def test_a_name_may_be_used_by_another_kind(scratch):
    toy(name="sce")
    assert registry.find("loss", "sce").__name__ == "SCE"


def test_component_module_that_fails_to_import_fails_every_time(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", False)
    real = importlib.import_module

    def broken(name, *rest):
        if name == "trainables.losses.sce":
            raise ImportError("no such module")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    for _ in range(2):
        with pytest.raises(ImportError):
            registry.names("loss")


def test_field_added_later_is_left_out_of_the_id_at_its_old_value(scratch):
    old = toy(a=1.0)
    new = toy(a=1.0, b=0.0, unhashed={"b": 0.0})
    assert content_id(new(a=2.0).identity()) == content_id(old(a=2.0).identity())
    assert content_id(new(a=2.0, b=0.5).identity()) != content_id(old(a=2.0).identity())
    assert "b" not in new().identity()["parameters"]


def test_unhashed_counts_the_old_value_not_the_default(scratch):
    # The default may move on; the id of what was done before must not.
    new = toy(a=1.0, b=9.0, unhashed={"b": 0.0})
    assert "b" not in new(b=0.0).identity()["parameters"]
    assert new().identity()["parameters"]["b"] == 9.0


def test_spec_holds_unhashed_fields_too(scratch):
    assert toy(a=1.0, b=0.0, unhashed={"b": 0.0})().spec() == {"name": "plain", "a": 1.0, "b": 0.0}


PLUGIN = '''
from typing import ClassVar
from trainables.losses.sce import SCE
from trainables.registry import component

@component("{name}", revision=1)
class Own(SCE):
    """A loss of one's own."""
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch, scratch):
    """Writes a package with one loss and makes it importable; gives its name."""
    registry._digest.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(package="own_losses", name="own", extra=""):
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(PLUGIN.format(name=name))
        (folder / "helper.py").write_text(f"# {extra}\n")
        for module in [key for key in sys.modules if key.partition(".")[0] == package]:
            del sys.modules[module]
        importlib.invalidate_caches()
        return package

    return write


def test_plugin_registers_its_components(plugin):
    registry.load_plugin(plugin())
    assert "own" in registry.names("loss")
    assert registry.build("loss", "own").name == "own"


def test_any_change_of_a_plugins_source_changes_its_components_ids_alone(plugin):
    sce = content_id(registry.build("loss", "sce").identity())
    ids = []
    for extra in ("", "", "another comment"):
        registry._digest.cache_clear()  # as in another process
        registry.load_plugin(plugin(extra=extra))
        ids.append(content_id(registry.build("loss", "own").identity()))
    assert ids[0] == ids[1] != ids[2]
    assert content_id(registry.build("loss", "sce").identity()) == sce


def test_a_file_that_changes_while_we_run_changes_no_id_of_this_process(plugin, tmp_path):
    # What runs is what was imported: its numbers must not bear the new source's id.
    registry.load_plugin(plugin())
    before = content_id(registry.build("loss", "own").identity())
    (tmp_path / "own_losses" / "helper.py").write_text("# edited meanwhile")
    registry.load_plugin("own_losses")
    assert content_id(registry.build("loss", "own").identity()) == before


def test_what_a_plugin_imports_is_hashed_too(plugin, tmp_path):
    package = plugin()
    (tmp_path / "front.py").write_text(f"import {package}")
    registry.load_plugin("front")
    assert " " in str(registry.build("loss", "own").identity()["revision"])


def test_plugin_may_be_a_folder_without_init(plugin, tmp_path):
    (tmp_path / "spacious").mkdir()
    (tmp_path / "spacious" / "loss.py").write_text(PLUGIN.format(name="roomy"))
    registry.load_plugin("spacious.loss")
    assert " " in str(registry.build("loss", "roomy").identity()["revision"])


def test_plugin_may_be_one_file(plugin, tmp_path):
    (tmp_path / "single_loss.py").write_text(PLUGIN.format(name="single"))
    registry.load_plugin("single_loss")
    assert " " in str(registry.build("loss", "single").identity()["revision"])


@pytest.mark.parametrize("code", [None, "import nothing_like_it", "raise OSError('no')", "1 +"])
def test_plugin_that_cannot_be_imported_is_told(plugin, tmp_path, code):
    if code is not None:
        (tmp_path / "broken_plugin.py").write_text(code)
    with pytest.raises(BadPlugin, match=r"cannot import plugin 'broken_plugin' .*PYTHONPATH"):
        registry.load_plugin("broken_plugin")


def test_plugin_may_not_take_a_name_of_ours(plugin):
    with pytest.raises(BadPlugin, match="two components of kind 'loss' are named 'sce'"):
        registry.load_plugin(plugin("rival_losses", name="sce"))


def test_a_part_of_ours_is_no_plugin():
    before = content_id(registry.build("loss", "sce").identity())
    with pytest.raises(BadPlugin, match="is a part of this package"):
        registry.load_plugin("trainables.losses.sce")
    assert content_id(registry.build("loss", "sce").identity()) == before


def test_reader_takes_a_component_its_name_or_its_specification():
    read = registry.reader("loss")
    assert read("isce") == read({"name": "isce"}) == read(ISCE()) == ISCE()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "expected the name of a loss or {name: …}, found 3"),
        ("isse", "unknown loss 'isse'"),
        ({"name": "isce", "s": 0, "m": -1}, "s: .*; m: "),
    ],
)
def test_reader_tells_what_is_wrong_as_a_plain_value_error(value, told):
    with pytest.raises(ValueError, match=told) as error:
        registry.reader("loss")(value)
    assert not isinstance(error.value, ValidationError | UnknownName)


def test_reader_takes_no_component_of_another_kind():
    with pytest.raises(ValueError, match="expected the name of a budget"):
        registry.reader("budget")(ISCE())
