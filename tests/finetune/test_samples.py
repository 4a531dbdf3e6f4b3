"""Finetuning samples: labels stay on their pixels; a sample depends on seed and item only."""

import numpy as np
import pytest
import torch
from make_labels import write_frames25k

from pri3d.config import Insseg, Semseg
from pri3d.datasets import open_split
from pri3d.finetune.labels import masks_of, targets
from pri3d.finetune.samples import IGNORED, Damaged, resolve_item
from pri3d.finetune.tasks import insseg, semseg
from pri3d.run import processes
from pri3d.transforms.color import IMAGENET_MEAN, IMAGENET_STD

CLASSES = (0, 1, 2, 5, 7, 39)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_frames25k(tmp_path_factory.mktemp("data") / "frames", classes=CLASSES)
    return open_split("scannet", root, "train")


def colors(image):
    """A normalised image as colors 0..255."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image * std + mean) * 255).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("crop", "flip"), [(1.0, False), (1.0, True), (0.5, True)])
def test_labels_follow_their_pixels(data, crop, flip):
    """The pictures are drawn with one color per class: colors show what the labels must be."""
    settings = Semseg(height=96, width=128, crop=crop, flip=flip, augment_color=False)
    samples = semseg.samples(data, list(range(12)), settings)
    palette = np.random.default_rng(7).integers(30, 226, (1 << 12, 3))[list(CLASSES)]
    ids = np.array([IGNORED if n == 0 else data.classes.ids.index(n) for n in CLASSES])
    for item in range(24):
        sample = samples[item]
        distance = np.abs(colors(sample.image_CHW)[:, :, None] - palette).sum(axis=-1)
        expected = ids[distance.argmin(axis=-1)]
        agree = (sample.target_HW.numpy() == expected).mean()
        assert agree > (0.97 if crop == 1 else 0.93), item  # colors mix at edges


def test_every_epoch_has_every_image_once_in_another_order(data):
    chosen = [3, 5, 8, 11]
    orders = [[resolve_item(4 * epoch + i, chosen, 0)[0] for i in range(4)] for epoch in range(6)]
    assert all(sorted(order) == chosen for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert orders != [[resolve_item(4 * e + i, chosen, 1)[0] for i in range(4)] for e in range(6)]


def test_a_sample_does_not_depend_on_the_order_of_access(data):
    samples = semseg.samples(data, list(range(12)), Semseg(height=64, width=96))
    again = semseg.samples(data, list(range(12)), Semseg(height=64, width=96))
    late = again[17]
    for item in (3, 17):
        assert torch.equal(samples[item].image_CHW, again[item].image_CHW)
    assert torch.equal(late.target_HW, samples[17].target_HW)
    assert not torch.equal(samples[17].image_CHW, samples[29].image_CHW)


def test_masks_and_boxes_of_objects(data):
    settings = Insseg(min_pixels=300, augment_color=False, flip=True)
    samples = insseg.samples(data, list(range(12)), settings)
    mirrored = 0
    for item in range(12):
        frame, _ = resolve_item(item, list(range(12)), 0)
        objects, sample = data.objects(frame), samples[item]
        size = np.bincount(objects.number.ravel())
        kept = [n for n in objects.class_of if size[n] >= 300]
        masks = sample.target["masks"].numpy().astype(bool)
        assert sample.target["labels"].tolist() == [objects.class_of[n] for n in sorted(kept)]
        expected = np.stack([objects.number == n for n in sorted(kept)])
        if not np.array_equal(masks, expected):
            np.testing.assert_array_equal(masks, expected[:, :, ::-1])
            mirrored += 1
        for mask, (x1, y1, x2, y2) in zip(masks, sample.target["boxes"].tolist()):
            rows, columns = np.nonzero(mask)
            assert (x1, y1) == (columns.min(), rows.min())
            assert (x2, y2) == (columns.max() + 1, rows.max() + 1)
    assert 0 < mirrored < 12


def test_images_without_objects_have_empty_targets(data):
    masks, labels = masks_of(data.objects(0), (96, 128), min_pixels=10**6)
    empty = targets(masks, labels)
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 96, 128)
    assert empty["labels"].dtype == torch.int64


def test_batches_move_whole_to_a_device(data):
    """A device without memory shows what was not moved, and needs no GPU."""
    objects = insseg.samples(data, [0, 1], Insseg())
    labeled = semseg.samples(data, [0, 1], Semseg(height=64, width=96))
    device = torch.device("meta")
    moved = processes.move(insseg.collate([objects[0], objects[1]]), device)
    tensors = [*moved.images, *(value for target in moved.targets for value in target.values())]
    moved = processes.move(semseg.collate([labeled[0], labeled[1]]), device)
    tensors += [moved.images_BCHW, moved.targets_BHW]
    assert len(tensors) == 2 + 2 * 3 + 2
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.names == [labeled[0].name, labeled[1].name]


def test_damaged_samples_are_set_apart(data):
    good = semseg.samples(data, [0], Semseg(height=64, width=96))[0]
    batch = semseg.collate([good, Damaged("x", "why"), good])
    assert batch.images_BCHW.shape == (2, 3, 64, 96)
    assert batch.damaged == [Damaged("x", "why")]
    assert semseg.collate([Damaged("x", "why")]).images_BCHW is None
