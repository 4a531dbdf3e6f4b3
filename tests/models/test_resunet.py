"""The 2D UNet: size, names, resolutions, memory format, precision, ImageNet weights."""

import pytest
import torch
import torchvision

from pri3d.errors import Pri3DError
from pri3d.models.resunet import encode, imagenet_weights, resnet_encoder, resunet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return resunet("resnet18").eval()


@pytest.mark.parametrize(
    ("name", "decoder", "channels"),
    [("resnet18", 9_491_296, 32), ("resnet34", 9_491_296, 32), ("resnet50", 151_825_792, 128)],
)
def test_published_parameter_counts(name, decoder, channels):
    with torch.device("meta"):
        network = resunet(name)
        classifier = getattr(torchvision.models, name)()
    assert sum(p.numel() for p in network.decoder.parameters()) == decoder
    assert network.channels == channels
    names = {key for key in classifier.state_dict() if not key.startswith("fc.")}
    assert set(network.encoder.state_dict()) == names


def test_published_names(network):
    names = set(network.state_dict())
    for up in range(1, 5):
        for leaf in ("conv1.weight", "bn1.running_var", "conv1_2.weight", "bn1_2.bias"):
            assert f"decoder.up{up}.{leaf}" in names
        assert f"decoder.up{up}.conv2.weight" in names
        assert f"decoder.up{up}.conv1.bias" not in names
    assert {"decoder.conv0.weight", "decoder.conv0.bias", "encoder.layer4.1.bn2.weight"} <= names


def test_the_half_encoder_is_torchvisions_with_half_the_channels():
    """Embedded in torchvision's network, whose other channels are zero, it computes the same."""
    torch.manual_seed(0)
    half, whole = resnet_encoder("resnet18_half").eval(), resnet_encoder("resnet18").eval()
    narrow, wide = half.state_dict(), whole.state_dict()
    assert list(narrow) == list(wide)
    for name, value in narrow.items():
        if not name.endswith("num_batches_tracked"):
            wide[name].fill_(1.0 if name.endswith("running_var") else 0.0)
            wide[name][tuple(slice(size) for size in value.shape)] = value
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found, expected = (torch.nn.Sequential(*net.children())(x) for net in (half, whole))
    assert found.shape == (1, 256, 2, 3)
    torch.testing.assert_close(found, expected[:, :256])
    assert not expected[:, 256:].any()
    assert resunet("resnet18_half")(x).shape == (1, 16, 32, 48)
    with pytest.raises(Pri3DError, match="there are no ImageNet weights of resnet18_half"):
        imagenet_weights("resnet18_half")


@pytest.mark.parametrize("size", [(64, 96), (48, 64), (33, 50), (32, 32)])
def test_features_at_half_resolution(network, size):
    with torch.no_grad():
        out = network(torch.rand(2, 3, *size))
    # Twice the map at stride 4, whose sides are rounded up.
    assert out.shape == (2, 32, *(2 * -(-side // 4) for side in size))
    if not any(side % 4 for side in size):
        assert out.shape[-2:] == tuple(side // 2 for side in size)


def test_a_shifted_image_gives_shifted_features(network):
    """Features belong to their pixels: moved by the coarsest stride, they move by half of it."""
    wide = torch.rand(1, 3, 64, 416, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = network(wide[..., :384])[0, :, :, 32:160], network(wide[..., 32:])[0, :, :, 16:144]
        elsewhere = network(wide[..., :384])[0, :, :, 28:156]
    close, far = (a - b).norm(), (elsewhere - b).norm()
    assert close < 0.25 * far


def test_channels_last_is_kept_and_changes_nothing(network):
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = network(x)
        out = network(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_autocast_stays_close_to_float32():
    torch.manual_seed(0)
    network = resunet("resnet18")
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x)
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).norm() < 0.05 * exact.norm()
    out.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_imagenet_weights_fit_the_encoder(monkeypatch):
    classifier = torchvision.models.resnet18()
    asked = []

    def weights(self, *_args, **_options):
        asked.append(self)
        return classifier.state_dict()

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", weights)
    encoder = resnet_encoder("resnet18")
    encoder.load_state_dict(imagenet_weights("resnet18"))
    assert asked == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name]), name


def test_imagenet_weights_that_cannot_be_fetched_are_a_clear_error(monkeypatch):
    def weights(self, *_args, **_options):
        raise OSError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", weights)
    with pytest.raises(
        Pri3DError, match=r"resnet18 cannot be downloaded \(no route\); put resnet18-"
    ):
        imagenet_weights("resnet18")


def test_unknown_encoders_are_named():
    with pytest.raises(ValueError, match="resnet18, resnet34, resnet50"):
        resunet("resnet19")


@pytest.mark.parametrize(("dilated", "strides"), [(False, (4, 8, 16, 32)), (True, (4, 8, 8, 8))])
def test_encode_returns_the_map_of_each_stage(dilated, strides):
    encoder = resnet_encoder("resnet50", dilated=dilated).eval()
    image = torch.randn(1, 3, 64, 96)
    maps = encode(encoder, image)
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(s, s) for s in strides]
    torch.testing.assert_close(maps[-1], torch.nn.Sequential(*encoder.children())(image))
    assert torch.equal(encode(encoder, image, stages=2)[-1], maps[1])
