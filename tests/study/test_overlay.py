"""Files over files: what is merged, what rules set and where, and what is set by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.loader import GONE
from study.overlay import Place, at_places, merged, pruned, with_keys

PLAIN = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_laid_over_itself_is_itself(data):
    assert merged(data, data) == data


@given(PLAIN, PLAIN)
def test_what_is_laid_over_leads_and_nothing_is_touched(base, over):
    before = repr((base, over))
    result = merged(base, over)
    assert merged(result, over) == result
    assert repr((base, over)) == before


def test_mappings_are_merged_and_all_else_replaced():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merged(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert merged({"a": 1}, {"a": {"x": 1}}) == {"a": {"x": 1}}


def test_what_is_null_is_taken_away():
    result = merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": None}, "b": None})
    assert result == {"a": {"x": GONE, "y": 2}, "b": GONE}
    assert pruned(result) == {"a": {"y": 2}}
    assert pruned(merged(result, {"b": 4})) == {"a": {"y": 2}, "b": 4}  # another file may define it


def test_no_scale_and_no_rule_brings_back_a_part_of_what_is_gone():
    data = merged({"methods": {"a": {"loss": "sce"}, "b": {}}}, {"methods": {"a": None}})
    laid = with_keys(data, {"methods.a.seeds": 3, "methods": {"b": {"seeds": 2}}})
    assert pruned(laid) == {"methods": {"b": {"seeds": 2}}}
    found, mistakes = places(
        [{"if": {"data": "cifar10"}, "set": {"methods.a.seeds": 3}}], **data, epochs=1
    )
    assert [here["methods"] for here in found.values()] == [{"b": {}}] * 2
    assert not mistakes
    gone, _ = places(None, ["methods.b=null"], **data)
    assert all(here["methods"] == {} for here in gone.values())
    by_hand, _ = places(None, ["methods.a.loss=mmc"], **data)
    assert all(here["methods"]["a"] == {"loss": "mmc"} for here in by_hand.values())


def test_a_component_of_another_name_is_replaced_as_a_whole():
    lgm = {"name": "lgm", "alpha": 0.1}
    assert merged(lgm, {"name": "isce", "s": 1}) == {"name": "isce", "s": 1}
    assert merged(lgm, {"name": "lgm", "weight": 2}) == {"name": "lgm", "alpha": 0.1, "weight": 2}
    assert merged(lgm, {"alpha": 0.2}) == {"name": "lgm", "alpha": 0.2}


def test_rules_add_up():
    assert merged({"when": [1]}, {"when": [2]}) == {"when": [1, 2]}


def test_keys_may_be_dotted_or_nested():
    data = {"training": {"epochs": 1, "lr": 2}}
    assert with_keys(data, {"training.epochs": 3, "seeds": 2}) == {
        "training": {"epochs": 3, "lr": 2},
        "seeds": 2,
    }
    assert with_keys(data, {"training": {"epochs": 3}}) == {"training": {"epochs": 3, "lr": 2}}


STUDY = {"data": ["mnist", "cifar10"], "backbone": "resnet32", "epochs": 1, "methods": {}}


def places(rules, overrides=(), **keys):
    mistakes = []
    found = dict(at_places({**STUDY, **keys, "when": rules}, overrides, mistakes))
    return found, [str(mistake) for mistake in mistakes]


def test_a_study_is_in_every_pair_of_data_set_and_backbone():
    found, mistakes = places(None, backbone=["resnet32", {"name": "lenet5", "embedding": 3}])
    assert list(found) == [
        Place(dataset, backbone)
        for dataset in ("mnist", "cifar10")
        for backbone in ("resnet32", "lenet5")
    ]
    assert str(Place("mnist", "lenet5")) == "lenet5/mnist"
    assert not mistakes
    assert all("when" not in data for data in found.values())


def test_methods_may_be_in_places_of_their_own():
    methods = {"a": {"loss": "sce", "backbone": "cnn8"}, "b": {"loss": "sce", "data": "svhn"}}
    found, _ = places(None, data="mnist", methods=methods)
    assert {str(place) for place in found} == {
        "resnet32/mnist",
        "cnn8/mnist",
        "resnet32/svhn",
        "cnn8/svhn",
    }


def test_a_rule_sets_keys_where_it_fits():
    found, mistakes = places([{"if": {"data": "cifar10"}, "set": {"epochs": 5}}])
    assert {place.dataset: data["epochs"] for place, data in found.items()} == {
        "mnist": 1,
        "cifar10": 5,
    }
    assert not mistakes


def test_a_rule_may_choose_the_backbone_of_a_data_set():
    rules = [
        {"if": {"backbone": ["cnn8", "lenet5"]}, "set": {"epochs": 7}},
        {"if": {"data": "cifar10"}, "set": {"backbone": "cnn8", "epochs": 5}},
    ]
    found, mistakes = places(rules)
    assert {str(place): data["epochs"] for place, data in found.items()} == {
        "resnet32/mnist": 1,
        "cnn8/cifar10": 7,  # rules that know the backbone come later
    }
    assert not mistakes


def test_of_rules_that_set_the_same_the_later_leads():
    rules = [{"if": {"data": "mnist"}, "set": {"epochs": n}} for n in (2, 3)]
    found, _ = places(rules)
    assert found[Place("mnist", "resnet32")]["epochs"] == 3


def test_what_is_set_by_hand_outlasts_every_rule():
    rules = [{"if": {"data": "cifar10"}, "set": {"backbone": "cnn8", "epochs": 5}}]
    found, _ = places(rules, ["epochs=9", "backbone=lenet5"])
    assert {str(place): data["epochs"] for place, data in found.items()} == {
        "lenet5/mnist": 9,
        "lenet5/cifar10": 9,
    }


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({}, "when: expected a list of {if: …, set: …}, found a mapping"),
        ([3], "when.0: expected {if: …, set: …}, found 3"),
        ([{"if": {"data": "mnist"}}], "when.0: expected {if: …, set: …}, found ['if']"),
        ([{"if": {}, "set": {"epochs": 1}}], "when.0.if: expected keys, found a mapping"),
        ([{"if": {"data": "mnist"}, "set": 3}], "when.0.set: expected keys, found 3"),
        ([{"if": {"daat": "mnist"}, "set": {"a": 1}}], "did you mean 'data'"),
        ([{"if": {"data": "mnits"}, "set": {"a": 1}}], "matches no trial: data mnits"),
        ([{"if": {"data": "mnist"}, "set": {"data": "svhn"}}], "when.0.set.data: cannot be set"),
        (
            [{"if": {"backbone": "resnet32"}, "set": {"backbone.embedding": 3}}],
            "when.0.set.backbone.embedding: cannot be set by a rule that asks for backbone",
        ),
    ],
)
def test_malformed_rules_are_told(rules, told):
    _, mistakes = places(rules)
    assert any(told in mistake for mistake in mistakes), mistakes
