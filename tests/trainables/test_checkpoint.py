"""Weights from elsewhere: what names them, what is refused, and that they are used as they are."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from trainables import registry
from trainables.attacks.pgd import PGD
from trainables.checkpoint import bring, digest_of, misfit, require_safetensors
from trainables.config import Cell, Checkpoint, TrialConfig, given, model_from
from trainables.datasets.mnist5k import MNIST5k
from trainables.errors import BadCheckpoint, BadPlugin, UnknownName
from trainables.execution import Execution
from trainables.losses.sce import SCE
from trainables.store import Store
from trainables.training import load_weights, new_classifier
from trainables.transforms.none import NoTransform
from trainables.trial import Trial

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "checkpoint"
THEIRS = EXAMPLE / "small_net.safetensors"
OURS = ROOT / "tests" / "models" / "sce.safetensors"
NAME = "small_net:SmallNet"
MEAN, STD = (0.1307,), (0.3081,)
CELLS = (Cell(probe=PGD(budget="l2_abs", eps=1.0, steps=2, eot=1), split="test", n=20),)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))


def theirs(path=THEIRS, *, backbone=NAME, seed=0, mean=MEAN, arm=(), **parts):
    return given(
        dataset=MNIST5k(),
        backbone=registry.build("backbone", backbone),
        transform=NoTransform(),
        checkpoint=Checkpoint(file=path.name, sha256=digest_of(path), mean=mean, std=STD, arm=arm),
        seed=seed,
        **parts,
    )


def ours(path=OURS, **parts):
    return theirs(path, backbone="lenet5", loss=SCE(), **parts)


def written(path, change=lambda weights: weights):
    safetensors.torch.save_file(change(safetensors.torch.load_file(THEIRS)), path)
    return path


# Ids.


def test_the_bytes_of_the_file_name_the_model_and_its_place_does_not(tmp_path):
    copy, other = tmp_path / "elsewhere.safetensors", tmp_path / "other.safetensors"
    copy.write_bytes(THEIRS.read_bytes())
    data = bytearray(THEIRS.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert theirs(copy).id == theirs().id
    assert theirs(other).id != theirs().id


# A change here means that no stored result is found any more.
def test_golden_id_of_a_checkpoint_of_our_own_architecture():
    assert ours().id == "d566a91894355eb6"


def test_nothing_of_training_reaches_the_id():
    text = json.dumps(theirs()._identity())
    assert not any(word in text for word in ("epochs", "regime", "seed", "loss", "small_net.safe"))
    assert theirs(seed=3).id == theirs().id


def test_what_is_made_of_the_weights_does(tmp_path):
    changes = [
        theirs(mean=(0.5,)),
        theirs(backbone={"name": NAME, "arguments": {"channels": 16}}),
        dataclasses.replace(theirs(), transform=registry.build("transform", "random_resize_pad")),
        dataclasses.replace(theirs(), dataset=MNIST5k(subset={"train": 100})),
    ]
    assert len({theirs().id, *(model.id for model in changes)}) == 5


def test_checkpoints_of_one_list_are_one_arm_and_those_of_two_are_two(tmp_path):
    double = written(tmp_path / "b.safetensors", lambda w: {k: 2 * v for k, v in w.items()})
    arm = tuple(sorted((digest_of(THEIRS), digest_of(double))))
    both = theirs(arm=arm), theirs(double, arm=arm)
    assert both[0].arm_id == both[1].arm_id
    assert both[0].id != both[1].id
    alone = [theirs(path, arm=(digest_of(path),)).arm_id for path in (THEIRS, double)]
    assert len({*alone, both[0].arm_id}) == 3


@pytest.mark.parametrize("make", [theirs, ours])
def test_a_configuration_round_trips(make):
    config = TrialConfig(model=make(), cells=CELLS)
    again = TrialConfig.parse(config.dump())
    assert again == config
    assert again.model.id == config.model.id
    assert again.dump() == config.dump()


# A network of one's own.


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package with a network, as in another process; gives the network's name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body="class Net(torch.nn.Linear): pass", module="own_net"):
        (tmp_path / f"{module}.py").write_text(f"import torch\n{body}\n")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        registry._digest.cache_clear()
        sys.modules["trainables.backbones.network"].network.cache_clear()
        return f"{module}:Net"

    return write


def test_any_change_of_its_source_changes_its_id(package):
    ids = [
        registry.build("backbone", package(f"class Net(torch.nn.Linear): pass{extra}")).identity()
        for extra in ("", "", "  # a comment")
    ]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0]["component"] == "backbone/own_net:Net"


def test_it_is_a_component_like_any_other():
    one, same, other = (
        registry.build("backbone", {"name": NAME, "arguments": {"channels": n}}) for n in (4, 4, 8)
    )
    assert one == same != other
    assert hash(one) == hash(same)
    assert one.name == one.spec()["name"] == NAME
    assert NAME not in registry.names("backbone")
    assert registry.build("backbone", NAME).build((1, 28, 28)).linear.in_features == 576


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("no_such_package:Net", BadPlugin, "the folder of the study file is not searched"),
        ("small_net:SmallNett", UnknownName, "did you mean 'SmallNet'"),
        ("small_net:torch", UnknownName, "unknown network of small_net 'torch'"),
        ("trainables.backbones.lenet5:LeNet5", BadPlugin, "is a part of this package"),
        (":Net", BadPlugin, "cannot import"),
    ],
)
def test_what_cannot_be_imported_is_told(name, error, told):
    with pytest.raises(error, match=told):
        registry.build("backbone", name)


def test_a_network_that_uses_view_is_not_laid_out_channels_last():
    classifier = new_classifier(theirs(), Execution(channels_last=True))
    assert classifier.backbone.conv2.weight.is_contiguous()
    assert classifier(torch.rand(2, 1, 28, 28)).shape == (2, 10)


# Files.


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_pickle_is_refused_unread_with_the_two_lines_that_convert_it(tmp_path, save):
    path, sprung = tmp_path / "best.pth", tmp_path / "sprung"
    save({"weight": Trap(sprung)}, path)
    with pytest.raises(BadCheckpoint) as error:
        require_safetensors(path)
    assert not sprung.exists()
    lines = str(error.value).splitlines()[1:]
    safe = {"weight": torch.ones(2)}
    torch.save(safe, path)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        exec("\n".join(line.strip() for line in lines))
    finally:
        os.chdir(here)
    require_safetensors(tmp_path / "best.safetensors")


def test_a_header_that_begins_as_a_pickle_does_is_none(tmp_path):
    for size in range(1, 120, 8):  # one of them has a header of 128 bytes
        path = tmp_path / f"{size}.safetensors"
        safetensors.torch.save_file({"w" * size: torch.ones(1)}, path)
        require_safetensors(path)
    starts = {path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert b"\x80" in starts


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("small_net.safetensor", "did you mean 'small_net.safetensors'"),
        ("small_net.py", "expected 'small_net.py' to be a safetensors file"),
        (".", "directory"),
    ],
)
def test_what_is_no_checkpoint_is_told(name, told):
    with pytest.raises(BadCheckpoint, match=told):
        require_safetensors(EXAMPLE / name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda w: {f"module.{key}": value for key, value in w.items()},
            r"'conv1.weight' is missing; did you mean 'module.conv1.weight'\?; .*; "
            "and 3 more like it; 'module.conv1.bias' is not one of its weights",
        ),
        (
            lambda w: {**w, "linear.bias": torch.zeros(9)},
            "'linear.bias' is 9, expected 10",
        ),
        (lambda w: {**w, "linear.bias": w["linear.bias"] / 0}, "logits that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path, change, told):
    path = written(tmp_path / "other.safetensors", change)
    assert re.search(told, misfit(theirs(path), path))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "class Net(torch.nn.Flatten): pass",
            "gives 2 x 784 for two images, expected logits 2 x 10",
        ),
        ("class Net(torch.nn.Module):\n def forward(self, x): return x, x", "gives tuple"),
        (
            "class Net(torch.nn.Module):\n def forward(self, x): return torch.rand(len(x), 10)",
            "draws at random in eval mode",
        ),
        ("class Net(torch.nn.Module):\n def forward(self, x): return x.nothing", "cannot take"),
        ("def Net(): return 3", "made int, no torch.nn.Module"),
        ("def Net(): return 1 / 0", "cannot be made with arguments {}: division by zero"),
    ],
)
def test_networks_that_give_no_logits_are_told(package, tmp_path, body, told):
    path = tmp_path / "empty.safetensors"
    safetensors.torch.save_file({}, path)
    assert told in misfit(theirs(path, backbone=package(body)), path)


def test_a_backbone_of_ours_needs_a_loss():
    assert "loss is missing" in misfit(theirs(OURS, backbone="lenet5"), OURS)
    assert misfit(ours(), OURS) is None


# In the store.


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_what_is_brought_gives_what_the_network_gives(store, splits):
    config = theirs()
    bring(config, THEIRS, store)
    objects = store.read(f"models/{config.id}")
    classifier = new_classifier(model_from(json.loads(objects["config.json"])), Execution())
    load_weights(classifier, objects["weights.safetensors"])
    network = importlib.import_module("small_net").SmallNet()
    network.load_state_dict(safetensors.torch.load_file(THEIRS))
    images = splits.test.images[:50]
    with torch.no_grad():
        wanted = network.eval()((images - 0.1307) / 0.3081)
        assert torch.equal(classifier.eval()(images), wanted)
    assert (wanted.argmax(dim=1) == splits.test.labels[:50]).float().mean() > 0.9


def test_weights_of_ours_are_brought_as_they_are(store):
    bring(ours(), OURS, store)
    brought = safetensors.torch.load(store.read(f"models/{ours().id}")["weights.safetensors"])
    for name, value in safetensors.torch.load_file(OURS).items():
        assert torch.equal(brought.pop(name), value)
    assert not brought


def test_a_file_that_has_changed_since_is_not_brought(tmp_path, store):
    path = written(tmp_path / "net.safetensors")
    config = theirs(path)
    path.write_bytes(OURS.read_bytes())
    for _ in range(2):
        with pytest.raises(BadCheckpoint, match="has changed since"):
            bring(config, path, store)
        path.unlink(missing_ok=True)
    assert not store.entries("models")


def test_a_worker_never_trains_in_place_of_weights_that_are_not_there(store):
    config = TrialConfig(model=theirs(), cells=CELLS)
    report = Trial(config, store, Execution()).advance()
    assert (report.done, report.waits, report.failed) == (True, True, None)
    assert not store.entries("models")
    assert not store.entries("progress")
    bring(config.model, THEIRS, store)
    trial = Trial(config, store, Execution())
    while not (report := trial.advance()).done:
        pass
    assert (report.failed, report.waits, report.epoch, report.cells) == (None, False, 0, 1)
