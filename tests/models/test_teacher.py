"""Frozen teachers, and the layer that brings their features to the resolution of the image."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from pri3d.config import Pretrain
from pri3d.errors import Pri3DError
from pri3d.models.sync_batch_norm import synchronize_batch_norm
from pri3d.models.teacher import Teacher, UpsamplingProjection
from pri3d.pretrain.initial_weights import load_initial_weights
from pri3d.pretrain.modes import module_of
from pri3d.run.folder import RANDOM


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_requested_pixels_equal_the_whole_upsampled_map(dtype):
    torch.manual_seed(0)
    layer = UpsamplingProjection(12, 5).to(dtype)
    map_BChw = torch.randn(3, 12, 4, 6, dtype=dtype, requires_grad=True)
    shape = 64, 90
    counts = [40, 0, 25]
    pixels = [torch.randint(64 * 90, (n,)) + i * 64 * 90 for i, n in enumerate(counts)]
    found = layer(map_BChw, torch.cat(pixels), counts, shape)
    whole = torch.nn.functional.interpolate(
        layer.projection(map_BChw), size=shape, mode="bilinear", align_corners=True
    )
    expected = whole.permute(0, 2, 3, 1).reshape(-1, 5)[torch.cat(pixels)]
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradient = torch.autograd.grad(found.sin().sum(), map_BChw, retain_graph=True)[0]
    expected_gradient = torch.autograd.grad(expected.sin().sum(), map_BChw)[0]
    torch.testing.assert_close(
        gradient, expected_gradient, rtol=10 * tolerance, atol=10 * tolerance
    )


def test_an_encoder_gives_its_last_stage():
    teacher = Teacher("resnet18").double().train()
    whole = torchvision.models.resnet18(weights=None).double().eval()
    whole.load_state_dict(teacher.network.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    body = torch.nn.Sequential(*list(whole.children())[:-2])
    torch.testing.assert_close(teacher(image), body(image))
    assert not teacher.network.bn1.training
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [
        ("torchvision:mobilenet_v3_small", 576, 32),
        ("torchvision:regnet_y_400mf", 440, 32),
        ("torchvision:resnet18", 512, 32),
        ("torchvision:densenet121", 1024, 32),
        ("torchvision:mobilenet_v2", 1280, 32),
        ("torchvision:shufflenet_v2_x0_5", 1024, 32),
        ("torchvision:mnasnet0_5", 1280, 32),
        ("torchvision:vgg11_bn", 512, 32),
        ("timm:resnet18", 512, 32),
        ("timm:mobilenetv3_small_050", 288, 32),
        ("timm:convnext_atto", 320, 32),
        ("timm:swin_tiny_patch4_window7_224", 768, 32),
        ("timm:vit_tiny_patch16_224", 192, 16),
    ],
)
def test_networks_of_other_libraries(name, channels, stride, tmp_path):
    torch.manual_seed(1)
    kind, _, inner = name.partition(":")
    if kind == "timm":
        whole = timm.create_model(inner)
    else:
        whole = torchvision.models.get_model(inner, weights=None)
    file = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), file)
    settings = Pretrain(
        teacher=name,
        teacher_weights=str(file),
        network3d={"widths": [8] * 8, "blocks": [1] * 8},
        projection_channels=16,
        height=64,
        width=96,
    )
    nets = module_of("ppkt").networks(settings)
    assert load_initial_weights(nets, settings)["teacher"].loaded
    teacher = nets["teacher"]
    shape = (64, 96)
    image = torch.randn(1, 3, *shape)
    found = teacher(image)
    assert found.shape == (1, channels, shape[0] // stride, shape[1] // stride)
    before = found.clone()
    synchronize_batch_norm(nets["teacher"])
    torch.testing.assert_close(teacher(image), before, rtol=1e-4, atol=1e-4)
    assert teacher.channels == channels
    own = teacher.network.state_dict()
    assert all(torch.equal(own[n], value) for n, value in whole.state_dict().items() if n in own)


def test_unusable_teachers_are_refused_in_one_sentence(tmp_path):
    for name, message in [
        ("torchvision:nonsense", "nonsense"),
        ("torchvision:vit_b_16", "has no feature map"),
        ("torchvision:fcn_resnet50", "has no classifier fcn_resnet50"),
        ("timm:nonsense", "Unknown model"),
        ("timm:mixer_s16_224", "has no feature map"),
    ]:
        with pytest.raises(Pri3DError, match=message):
            Teacher(name, (224, 224))
    with pytest.raises(Pri3DError, match="fails on images of 64 x 96 pixels"):
        Teacher("timm:mixer_s16_224", (64, 96))
    file = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    settings = Pretrain(teacher="torchvision:resnet18", teacher_weights=str(file))
    with pytest.raises(Pri3DError, match=r"lacks \d+ of 1\d\d entries"):
        load_initial_weights(module_of("ppkt").networks(settings), settings)
    settings = Pretrain(teacher="torchvision:resnet18", teacher_weights="imagenet")
    with pytest.raises(Pri3DError, match="give a file of its weights"):
        load_initial_weights(module_of("ppkt").networks(settings), settings)


def test_a_teacher_with_random_weights_is_warned_about(caplog):
    settings = Pretrain(teacher="resnet18_half")
    nets = module_of("ppkt").networks(settings)
    assert load_initial_weights(nets, settings) == {"teacher": RANDOM, "backbone3d": RANDOM}
    assert "has RANDOM weights" in caplog.text
