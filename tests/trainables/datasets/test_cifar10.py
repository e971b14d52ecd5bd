from __future__ import annotations

import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
import torchvision

from trainables.datasets.base import stratified_order
from trainables.datasets.cifar10 import CIFAR10, read_batch
from trainables.errors import DamagedData

BATCH = "cifar-10-batches-py/data_batch_3"


class Command:
    """Makes a folder when it is unpickled by whoever admits everything."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_runs_something_is_refused(make, tmp_path, protocol):
    small, made = make("cifar10"), tmp_path / "made"
    evil = pickle.dumps({"data": Command(made)}, protocol)
    small.content[BATCH] = evil
    small.say("train", {path: small.content[path] for path in small.dataset.train_files})
    small.write(tmp_path)
    with pytest.raises(DamagedData, match=rf"{BATCH} is no batch of images: it asks for \w+.mkdir"):
        small.dataset.read(tmp_path)
    assert not made.exists()
    pickle.loads(evil)
    assert made.exists()  # so it would have


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "list"])
def test_no_builtin_is_admitted(tmp_path, name):
    path = tmp_path / "batch"
    path.write_bytes(pickle.GLOBAL + f"builtins\n{name}\n".encode() + pickle.STOP)
    with pytest.raises(DamagedData, match=f"asks for builtins.{name}"):
        read_batch(path)


def test_other_globals_of_numpy_are_refused(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(np.load))
    with pytest.raises(DamagedData, match=r"asks for numpy.*load"):
        read_batch(path)


def test_dtype_is_made_of_truth_values(make, tmp_path, monkeypatch):
    # Some versions of NumPy warn of Python 2's integers, and a warning is an error here.
    made, real = [], np.dtype
    monkeypatch.setattr(np, "dtype", lambda *given: made.append(given) or real(*given))
    small = make("cifar10")
    batch = read_batch(small.write(tmp_path) / BATCH)
    assert made == [("u1", False, True)]
    assert all(type(value) is bool for value in made[0][1:])
    assert batch[b"data"].dtype == real("uint8")


def test_small_batches_are_written_as_the_published_ones(make, shared):
    def opcodes(content):
        found = [(code.name, value) for code, value, _ in pickletools.genops(content)]
        return {value for name, value in found if name == "GLOBAL"}, found[0]

    real = (shared(CIFAR10()) / BATCH).read_bytes()
    assert opcodes(make("cifar10").content[BATCH]) == opcodes(real)


def test_splits_hold_every_published_image_once(shared, same_images):
    folder = shared(CIFAR10())
    train, test = (
        torchvision.datasets.CIFAR10(folder, train=train, download=False) for train in (True, False)
    )
    splits = CIFAR10().read(folder)
    pixels = test.data.transpose(0, 3, 1, 2)
    same_images([splits.train, splits.validation], train.data.transpose(0, 3, 1, 2), train.targets)
    same_images([splits.test], pixels, test.targets)
    order = stratified_order(torch.tensor(test.targets))
    assert np.array_equal(splits.test.pixels.numpy(), pixels[order.numpy()])
    first = (order == 0).nonzero().item()
    assert splits.test.labels[first] == test.class_to_idx["cat"]
