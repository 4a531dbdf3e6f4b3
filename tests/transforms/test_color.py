"""Color augmentation: published probabilities and ranges, the same values as torchvision."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pri3d.transforms import color
from pri3d.transforms.color import augment, normalize


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(0).random((3, 16, 20), np.float32))


def draws(image, count=600):
    return [augment(image, np.random.default_rng([7, i])) for i in range(count)]


def test_the_same_generator_gives_the_same_image(image):
    first, again = (augment(image, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(image, np.random.default_rng(4)))


def test_every_image_draws_the_same_amount_of_numbers(image):
    after = set()
    for seed in range(20):
        rng, reference = np.random.default_rng(seed), np.random.default_rng(seed)
        augment(image, rng)
        augment(torch.zeros(3, 8, 8), reference)
        assert rng.bit_generator.state == reference.bit_generator.state
        after.add(rng.bit_generator.state["state"]["state"])
    assert len(after) == 20


def test_values_stay_in_range_and_the_input_is_left_alone(image):
    before = image.clone()
    for out in draws(image, 100):
        assert out.shape == image.shape
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1 + 1e-6
    assert torch.equal(image, before)


def test_the_probability_of_each_change(image):
    outs = draws(image)
    gray = np.mean([torch.allclose(out[0], out[2], atol=1e-6) for out in outs])
    assert abs(gray - 0.2) < 0.05
    unchanged = np.mean([torch.equal(out, image) for out in outs])
    assert abs(unchanged - 0.2 * 0.8 * 0.5) < 0.04
    flat = torch.full((3, 16, 20), 0.5)
    flat[:, 8, 10] = 0.9  # blur changes the neighbors of a dot
    blurred = np.mean([(out[:, 8, 11] != out[:, 0, 0]).any().item() for out in draws(flat)])
    # A blur with a small sigma does not change the neighbors by a single bit.
    assert 0.4 < blurred < 0.55


def test_colors_change_within_the_published_bounds():
    # A constant gray is changed by brightness alone, by a factor of 0.6 to 1.4.
    flat = torch.full((3, 8, 8), 0.5)
    factors = np.array([(out / flat).mean().item() for out in draws(flat)])
    assert 0.59 < factors.min() < 0.65
    assert 1.35 < factors.max() < 1.41
    assert abs(np.mean(np.abs(factors - 1) < 1e-5) - 0.2) < 0.05


def test_nothing_moves():
    # A blurred, jittered dot keeps its position.
    image = torch.full((3, 33, 33), 0.2)
    image[:, 10, 22] = 0.9
    for out in draws(image, 60):
        assert out.sum(dim=0).argmax() == 10 * 33 + 22


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("brightness", 0.6),
        ("brightness", 1.4),
        ("contrast", 0.6),
        ("contrast", 1.4),
        ("saturation", 0.6),
        ("saturation", 1.4),
        ("hue", -0.1),
        ("hue", 0.07),
    ],
)
def test_each_adjustment_is_the_same_as_torchvisions(image, name, amount):
    image = image.clone()
    image[:, :4] = image[:1, :4]  # gray has no hue
    image[:, 4:6], image[0, 6:8], image[1, 8:10] = 0, 1, 1
    expected = getattr(v2.functional, f"adjust_{name}")(image, amount)
    changed = image.numpy().copy()
    getattr(color, f"adjust_{name}")(changed.reshape(3, -1), np.float32(amount))
    assert np.abs(changed - expected.numpy()).max() < 1e-5
    assert np.abs(changed - image.numpy()).max() > 0.01


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_the_blur_is_gaussian(image, sigma):
    size = 2 * int(np.ceil(3 * sigma)) + 1
    expected = v2.functional.gaussian_blur(image, [size, size], [sigma, sigma])
    blurred = color.gaussian_blur(image.numpy(), sigma)
    assert np.abs(blurred - expected.numpy()).max() < 1e-5


def test_normalization_uses_the_statistics_of_imagenet(image):
    expected = v2.functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(normalize(image), expected, atol=1e-6)
