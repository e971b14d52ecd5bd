"""Packed training is the training alone: in float64 exactly, in float32 but for rounding."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainables import packing, registry
from trainables import trial as trial_module
from trainables.attacks.clean import Clean
from trainables.backbones.base import Backbone
from trainables.config import Cell, TrialConfig
from trainables.datasets.base import Split, Splits
from trainables.execution import Execution
from trainables.packing import Joint, Member, Pack, joinable, kind_of, packs, train_together
from trainables.store import Store
from trainables.training import Trainer

CPU = Execution()
EXACT = {"rtol": 1e-8, "atol": 1e-9}  # of float64, after Adam has divided by small numbers
LOSSES = ("sce", "lgm", {"name": "center", "weight": 0.5})
OPTIONS = {"schedule": "cosine", "weight_decay": 1e-3, "clip_norm": 0.5, "augment": "crop"}
SHARED, OWN = (0, 0, 0), (0, 1, 0)  # seeds, hence batches
PACKS = [
    ("lenet5", SHARED),
    ("lenet5", OWN),
    ("cnn8", SHARED),
    ("resnet32", SHARED),
    ({"name": "resnet32", "shortcut": "B", "embedding": 12}, OWN),
]


@pytest.fixture
def few(splits):
    """Makes splits of n training images."""

    def make(n, dtype=torch.float32):
        train = splits.train.first(n)
        train = Split(train.images.to(dtype), train.labels)
        return Splits(train=train, validation=train.first(20), test=splits.test.first(10))

    return make


def both(configs, splits):
    """The same models to be trained together, and alone."""
    kinds = (
        [Member(config, splits, CPU) for config in configs],
        [Trainer(config, splits, CPU) for config in configs],
    )
    for trainer in (*kinds[0], *kinds[1]):
        trainer.classifier.to(splits.train.images.dtype)
    return kinds


def curve(trainer):
    """The history without what the clock says, as numbers."""
    return [
        (epoch.epoch, epoch.train_loss, epoch.train_accuracy, epoch.validation_accuracy)
        for epoch in trainer.history
    ]


def state(trainer):
    """Weights, running statistics and Adam's moments, by name."""
    adam = trainer.optimizer.state_dict()["state"]
    moments = {f"{n}.{key}": value for n, slots in adam.items() for key, value in slots.items()}
    return {**trainer.classifier.state_dict(), **moments}


def assert_same(together, alone, rtol, atol):
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(curve(ours), curve(theirs), strict=True):
            assert one == pytest.approx(other, rel=rtol)
        found, expected = state(ours), state(theirs)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=name)


def train(members, epochs):
    for _ in range(epochs):
        assert train_together(members) is None
        for member in members:
            member.epoch()
    return members


@pytest.mark.parametrize(("backbone", "seeds"), PACKS, ids=str)
def test_a_pack_trains_to_what_each_trains_to_alone(model_config, few, backbone, seeds):
    size, batch, epochs = (60, 25, 2) if backbone == "lenet5" else (12, 8, 1)
    configs = [
        model_config(loss, seed=seed, backbone=backbone, epochs=2, batch_size=batch, **OPTIONS)
        for loss, seed in zip(LOSSES, seeds, strict=True)
    ]
    members, alone = both(configs, few(size, torch.float64))
    train(members, epochs)
    for trainer in alone:
        for _ in range(epochs):
            trainer.epoch()
    assert_same(members, alone, **EXACT)
    assert all(member.packing == 3 for member in members)


def test_in_float32_the_difference_is_rounding(model_config, few):
    configs = [model_config(loss, epochs=2, batch_size=64) for loss in LOSSES]
    members, alone = both(configs, few(200))
    train(members, 2)
    for trainer in alone:
        trainer.epoch()
        trainer.epoch()
    assert_same(members, alone, rtol=1e-3, atol=1e-4)


def test_every_loss_goes_into_a_pack(model_config, few):
    losses = [cls.name for cls in registry.every("loss")]
    assert len(losses) > 5
    members, alone = both(
        [model_config(loss, epochs=1, batch_size=20) for loss in losses], few(50, torch.float64)
    )
    train(members, 1)
    for trainer in alone:
        trainer.epoch()
    assert_same(members, alone, **EXACT)


def test_what_a_pack_saves_a_trainer_goes_on_from_and_the_other_way_round(model_config, few):
    configs = [model_config(loss, epochs=3, batch_size=25, **OPTIONS) for loss in LOSSES]
    members, alone = both(configs, few(50, torch.float64))
    taken_up, packed_late = both(configs, few(50, torch.float64))[::-1]
    for trainer in alone:
        trainer.epoch()
    for late, trainer in zip(packed_late, alone, strict=True):
        late.load(trainer.save())
    train(packed_late, 2)
    train(members, 1)
    for trainer, member in zip(taken_up, members, strict=True):
        trainer.load(member.save())
        assert trainer.packing == 3
        trainer.epoch()
        trainer.epoch()
    for trainer in alone:
        trainer.epoch()
        trainer.epoch()
    assert_same(packed_late, alone, **EXACT)
    assert_same(taken_up, alone, **EXACT)


def test_an_epoch_that_goes_wrong_leaves_every_member_as_it_was(model_config, few):
    bad = {"name": "center", "weight": 1e300}
    configs = [model_config(loss, epochs=2, batch_size=25) for loss in ("sce", bad, "isce")]
    members, alone = both(configs, few(50))
    before = [member.save()["weights.safetensors"] for member in members]
    error = train_together(members)
    assert str(error) == "non-finite loss inf at epoch 1, step 1"
    assert [member.save()["weights.safetensors"] for member in members] == before
    assert [member.packing for member in members] == [1, 1, 1]
    for member, trainer in zip(members[::2], alone[::2], strict=True):
        assert dataclasses.replace(member.epoch(), seconds=0, time=0) == dataclasses.replace(
            trainer.epoch(), seconds=0, time=0
        )
        assert state(member).keys() == state(trainer).keys()
        assert all(torch.equal(state(member)[k], value) for k, value in state(trainer).items())


class Mixing(nn.Module):
    """A layer that is not known and whose children are: it mixes all channels it is given."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, maps):
        return self.inner(maps) - maps.mean(dim=1, keepdim=True)


UNUSUAL = {
    "unknown layers work on each model's maps": (True, lambda: [nn.GroupNorm(2, 4), nn.PReLU(4)]),
    "grouped convolutions": (True, lambda: [nn.Conv2d(4, 4, 3, groups=2, padding=1)]),
    "padding of another kind": (
        True,
        lambda: [nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular")],
    ),
    "batch statistics alone": (True, lambda: [nn.BatchNorm2d(4, track_running_stats=False)]),
    "norm without weights": (True, lambda: [nn.BatchNorm2d(4, affine=False)]),
    "mixed channels": (False, lambda: [Mixing()]),
    "draws": (False, lambda: [nn.Dropout(0.5)]),
}


@pytest.mark.parametrize("case", UNUSUAL)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_backbone_of_ones_own_is_joined_where_that_is_the_same(case, first):
    same, layers = UNUSUAL[case]

    class Own(Backbone):
        trunk_width = 8

        def trunk(self, shape):
            start = [] if first else [nn.Conv2d(4, 4, 3, bias=False)]
            size = 4 * (shape[1] - 2 * len(start)) ** 2
            return nn.Sequential(*start, *layers(), nn.Flatten(), nn.Linear(size, 8))

    assert joinable(Own(), (4, 7, 7)) == same


def test_every_backbone_can_be_joined():
    for cls in registry.every("backbone"):
        assert joinable(cls(), (1, 28, 28)), cls.name


def test_inputs_that_all_share_go_through_the_first_layer_once():
    networks = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)) for _ in "abc"]
    joint, images = Joint(networks), torch.rand(5, 1, 4, 4)
    seen = []
    joint.network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    shared = joint([images] * 3)
    own = joint([images, images.clone(), images.clone()])
    assert seen == [1, 3]
    for one, other, network in zip(shared, own, networks, strict=True):
        assert torch.allclose(one, network(images), atol=1e-6)
        assert torch.allclose(other, network(images), atol=1e-6)


CELLS = (Cell(probe=Clean(), split="test", n=10),)


@pytest.fixture
def pack(model_config, few, monkeypatch, tmp_path):
    """Makes a pack of trials that differ in their loss."""
    monkeypatch.setattr(trial_module, "load_splits", lambda *_: few(100))

    def make(losses=LOSSES, size="3", folder="store", seeds=(0, 0, 0)):
        store = Store(str(tmp_path / folder))
        configs = [
            TrialConfig(model=model_config(loss, seed=seed, epochs=3, batch_size=25), cells=CELLS)
            for loss, seed in zip(losses, seeds, strict=False)
        ]
        return Pack(configs, store, CPU, size), store, [config.model.id for config in configs]

    return make


def live(pack, seconds=0.0, steps=100):
    reports = []
    while not pack.done and steps:
        reports.append(pack.advance(seconds))
        steps -= 1
    return reports


def weights(store, model_id):
    return safetensors.torch.load(store.read(f"models/{model_id}")["weights.safetensors"])


def assert_close(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3, msg=name)


@pytest.fixture
def alone(pack):
    """The weights of each model of a pack, trained alone, by id."""
    trained = {}
    for loss in LOSSES:
        one, store, (model_id,) = pack([loss], folder="alone")
        live(one)
        trained[model_id] = weights(store, model_id)
    return trained


def test_a_pack_leaves_what_each_trial_leaves(pack, alone):
    three, store, ids = pack()
    reports = live(three)
    assert [[report.trial_id for report in step] for step in reports] == [ids] * 3 + [
        [model_id] for model_id in ids
    ]
    assert [[len(report.epochs) for report in step] for step in reports[:3]] == [[1] * 3] * 3
    assert [step[0].done for step in reports] == [False] * 3 + [True] * 3
    for model_id in ids:
        assert_close(weights(store, model_id), alone[model_id])
        assert len(store.entries(f"outcomes/{model_id}")) == 1
        assert not store.has(f"progress/{model_id}")
        record = store.read_json(f"trials/{model_id}", "record.json")
        assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
        assert record["execution"]["packing"] == 3
        assert store.read_json(f"models/{model_id}", "execution.json")["packing"] == 3


def test_a_step_lasts_as_long_as_it_is_given_and_reports_each_trial_once(pack):
    reports = live(pack()[0], seconds=1e9)
    assert [[len(report.epochs) for report in step] for step in reports] == [[3] * 3, [0], [0], [0]]


def test_a_pack_of_one_is_a_trial(pack):
    one, store, (model_id,) = pack(["sce"])
    assert [[len(r.epochs) for r in step] for step in live(one, seconds=1e9)] == [[3], [0]]
    assert "packing" not in store.read_json(f"models/{model_id}", "execution.json")
    assert "packing" not in store.read_json(f"trials/{model_id}", "record.json")["execution"]


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_pack_that_was_lost_is_taken_up_alone(pack, alone, after):
    three, store, ids = pack()
    live(three, steps=after)
    for loss in LOSSES:
        live(pack([loss])[0])
    for model_id in ids:
        assert_close(weights(store, model_id), alone[model_id])
        record = store.read_json(f"trials/{model_id}", "record.json")
        assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
        assert record["execution"]["packing"] == 3


def test_trials_that_were_further_wait_for_those_behind(pack, alone):
    for loss, epochs in zip(LOSSES, (2, 0, 4), strict=True):
        one = pack([loss])[0]
        live(one, steps=epochs)
    three, store, ids = pack()
    reports = live(three)
    told = [[(ids.index(r.trial_id), r.epoch) for r in step if r.epochs] for step in reports]
    assert told[:4] == [[(1, 1)], [(1, 2)], [(0, 3), (1, 3)], []]
    for model_id in ids:
        assert_close(weights(store, model_id), alone[model_id])


def test_a_loss_that_is_not_finite_fails_its_own_trial_and_the_rest_goes_on(pack, alone):
    bad = {"name": "center", "weight": 1e300}
    three, store, ids = pack([LOSSES[0], bad, LOSSES[1]])
    reports = [report for step in live(three) for report in step]
    failed = [(report.trial_id, report.failed) for report in reports if report.failed]
    assert failed == [(ids[1], "NonFiniteLoss: non-finite loss inf at epoch 1, step 1")]
    assert [report.warning for report in reports] == [None] * len(reports)
    assert store.entries("models") == {ids[0], ids[2]}
    for model_id in (ids[0], ids[2]):
        assert_close(weights(store, model_id), alone[model_id])
        assert store.read_json(f"models/{model_id}", "execution.json")["packing"] == 2
    record = store.read_json(f"trials/{ids[1]}", "record.json")
    assert record["failures"][0]["reason"] == failed[0][1]


def test_what_is_wrong_with_the_pack_alone_ends_it_and_is_told(pack, alone, monkeypatch):
    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Joint, "__call__", short)
    three, store, ids = pack()
    reports = live(three)
    assert [r.trial_id for r in reports[0]] == ids
    assert [r.warning for r in reports[0]] == [
        "models could not be trained together (CUDA out of memory): they are trained alone",
        None,
        None,
    ]
    assert all(len(step) == 1 for step in reports[1:])
    assert not any(report.failed for step in reports for report in step)
    for model_id, expected in alone.items():
        assert all(torch.equal(value, expected[k]) for k, value in weights(store, model_id).items())


def test_damage_is_told_and_made_anew(pack, alone):
    three, store, ids = pack()
    live(three, steps=1)
    folder = store._path(f"progress/{ids[1]}")
    for path in store.fs.find(folder):
        if not path.endswith("manifest.json"):
            store.fs.pipe_file(path, b"spoilt")
    again = pack()[0]
    first = again.advance(0.0)
    assert any("is damaged" in (report.warning or "") for report in first)
    live(again)
    for model_id in ids:
        assert_close(weights(store, model_id), alone[model_id])


@pytest.mark.parametrize("margin", [1e9, 0.0], ids=["faster", "slower"])
def test_auto_goes_by_the_first_steps(pack, alone, monkeypatch, margin):
    packing._clock.cache_clear()
    monkeypatch.setattr(packing, "MARGIN", margin)
    three, store, ids = pack(size="auto")
    reports = live(three)
    joint = [len(step) for step in reports if any(report.epochs for report in step)]
    assert joint == ([3, 3, 3] if margin else [3, 3] + [1] * 3)  # 2 x 4 steps: two epochs
    for model_id in ids:
        assert_close(weights(store, model_id), alone[model_id])
    again = pack(size="auto", folder="again")[0]
    assert len(again.advance(0.0)) == (3 if margin else 1)  # known by now
    packing._clock.cache_clear()


def test_clock_takes_both_ways_by_turns_and_leaves_the_first_of_each_out():
    clock = packing._Clock(torch.device("cpu"))
    ways = []
    while clock.verdict is None:
        ways.append(clock.next())
        clock.seconds[ways[-1]].append(9.0 if len(ways) <= 2 else 1.0 - 0.2 * ways[-1])
    assert ways == [False, True] * (1 + packing.TIMED)
    assert clock.verdict
    assert clock.next()
    clock.seconds[True] = [0.1, 0.95, 0.95, 0.95]
    assert clock.verdict is False
    with clock.timing(True):
        pass
    assert len(clock.seconds[True]) == 4


def test_only_plain_training_in_float32_is_packed(model_config):
    plain = model_config("sce", seed=1)
    assert kind_of(plain) == kind_of(model_config({"name": "isce", "m": 0.3}, seed=2)) is not None
    others = [
        {"regime": {"name": "adversarial", "budget": "linf", "eps": 0.1, "steps": 2}},
        {"transform": "random_resize_pad"},
        {"precision": "bfloat16"},
    ]
    assert [kind_of(model_config(**other)) for other in others] == [None] * 3
    for other in ({"lr": 0.5}, {"backbone": "cnn8"}, {"dataset": "mnist"}):
        assert kind_of(model_config(**other)) not in (None, kind_of(plain))


def planned(model_config, letters):
    """Trials by letter: `a` and `b` are of two kinds, `x` of none, capitals are trained."""
    options = {"a": {}, "b": {"lr": 0.5}, "x": {"precision": "bfloat16"}}
    models = [
        model_config(seed=index, **options[letter.lower()]) for index, letter in enumerate(letters)
    ]
    return [SimpleNamespace(id=model.id, model=model) for model in models]


@given(
    letters=st.text("abxAB", min_size=1, max_size=24),
    most=st.integers(1, 9),
    slots=st.integers(1, 6),
)
def test_packs_are_alike_no_larger_than_asked_and_keep_all_slots_busy(
    model_config, letters, most, slots
):
    trials = planned(model_config, letters)
    trained = {t.id for t, letter in zip(trials, letters, strict=True) if letter.isupper()}
    store = SimpleNamespace(entries=lambda folder: trained)
    groups = packs(trials, store, most, slots)
    assert sorted(t.id for group in groups for t in group) == sorted(t.id for t in trials)
    assert len(groups) >= min(slots, len(trials))
    for group in groups:
        assert len(group) <= most
        if len(group) > 1:
            assert len({kind_of(t.model) for t in group}) == 1
            assert not trained & {t.id for t in group}


@pytest.mark.parametrize(
    ("count", "size", "slots", "gpu", "expected"),
    [
        (8, 8, 2, False, [4, 4]),
        (9, 8, 2, False, [4, 5]),
        (9, 3, 1, False, [3, 3, 3]),
        (10, 4, 2, False, [3, 3, 4]),
        (3, 8, 4, False, [1, 1, 1]),
        (20, "auto", 1, False, [6, 7, 7]),
        (20, "auto", 1, True, [10, 10]),
    ],
)
def test_sizes_of_packs(model_config, count, size, slots, gpu, expected):
    trials = planned(model_config, "a" * count)
    groups = packs(trials, SimpleNamespace(entries=lambda _: set()), size, slots, gpu=gpu)
    assert sorted(map(len, groups)) == expected


def test_equal_seeds_come_into_one_pack(model_config):
    models = [model_config(loss, seed=seed) for loss in LOSSES for seed in (0, 1)]
    trials = [SimpleNamespace(id=model.id, model=model) for model in models]
    groups = packs(trials, SimpleNamespace(entries=lambda _: set()), 3, 1)
    assert [[t.model.seed for t in group] for group in groups] == [[0] * 3, [1] * 3]
