"""PPKT's image head reproduces the published one: 1x1 convolution, upsampling, directions."""

import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.models.teacher import UpsamplingProjection

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(("file", "case"), cases("05_ppkt_image_head"))
def test_image_head(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    x = golden.tensor(about["input"]).requires_grad_()
    parameters = {p["name"]: p for p in golden.about["parameters"][case.partition(".")[0]]}
    batch, projection_channels, *shape = about["output_shape"]
    layer = UpsamplingProjection(x.shape[1], projection_channels).double()
    for name in ("weight", "bias"):
        stored = f"decoder.0.{name}"
        value = golden.weight(stored, parameters[stored]["shape"])
        getattr(layer.projection, name).data.copy_(value)
    number = shape[0] * shape[1]
    pixels = torch.arange(batch * number)
    rows = layer(x, pixels, [number] * batch, tuple(shape))
    if about["normalize"]:
        rows = torch.nn.functional.normalize(rows, dim=1)
    out = rows.reshape(batch, *shape, projection_channels).permute(0, 3, 1, 2)
    golden.check(f"{case}.out", out)
    golden.projected(about["projection"], out).backward()
    golden.check(f"{case}.grad.x", x.grad)
    golden.check(f"{case}.grad.decoder.0.weight", layer.projection.weight.grad)
    golden.check(f"{case}.grad.decoder.0.bias", layer.projection.bias.grad)
