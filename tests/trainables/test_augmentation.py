from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainables.augmentation import SHIFT, augmented
from trainables.seeding import Draws

IMAGES = torch.rand(200, 3, 12, 10, generator=torch.Generator().manual_seed(0)) + 0.1
DRAWS = Draws((0, "training", 1), torch.arange(200))


def views(image, flips):
    """All views of one image there can be: pad by 4, crop, perhaps mirror."""
    padded = F.pad(image, (SHIFT,) * 4)
    _, height, width = image.shape
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            view = padded[:, down : down + height, right : right + width]
            yield (down, right, False), view
            if flips:
                yield (down, right, True), view.flip(2)


@pytest.mark.parametrize("augment", ["crop", "crop_flip"])
def test_every_image_becomes_one_of_its_padded_crops(augment):
    found = augmented(IMAGES, augment, DRAWS)
    seen = []
    for image, result in zip(IMAGES, found, strict=True):
        matches = [key for key, view in views(image, True) if torch.equal(view, result)]
        assert len(matches) == 1
        seen += matches
    downs, rights, flips = zip(*seen, strict=True)
    assert set(downs) == set(rights) == set(range(9))
    assert sum(flips) == 0 if augment == "crop" else 70 < sum(flips) < 130


def test_none_leaves_images_as_they_are():
    assert augmented(IMAGES, "none", DRAWS) is IMAGES


def test_an_images_view_does_not_depend_on_its_batch():
    whole = augmented(IMAGES, "crop_flip", DRAWS)
    index = torch.tensor([150, 3, 77])
    some = augmented(IMAGES[index], "crop_flip", DRAWS[index])
    assert torch.equal(some, whole[index])


def test_another_epoch_draws_another_view():
    one = augmented(IMAGES, "crop", DRAWS)
    other = augmented(IMAGES, "crop", Draws((0, "training", 2), torch.arange(200)))
    assert not torch.equal(one, other)
