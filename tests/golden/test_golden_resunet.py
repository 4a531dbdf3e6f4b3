"""The 2D network reproduces the published one: names, outputs, gradients, running statistics."""

import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.models.resunet import resunet

pytestmark = pytest.mark.golden

ENCODER = {"Res18UNet": "resnet18", "Res34UNet": "resnet34", "Res50UNet": "resnet50"}


def network_of(golden: Golden) -> torch.nn.Module:
    with torch.device("meta"):
        network = resunet(ENCODER[golden.about["module"]["name"]]).double()
    network.to_empty(device="cpu")
    golden.fill(network)
    # The other gradients would be gigabytes that nothing is compared with.
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in golden.about["gradient_parameters"])
    return network


@pytest.fixture(scope="module")
def filled():
    """The network of the file that was asked for last: filling one takes seconds."""
    latest = {}

    def get(file: str):
        if file not in latest:
            latest.clear()
            golden = Golden(file)
            latest[file] = golden, network_of(golden)
        return latest[file]

    return get


@pytest.mark.parametrize(("file", "case"), cases("01_resunet2d_*"))
def test_resunet(filled, file, case):
    golden, network = filled(file)
    about = golden.about["cases"][case]
    for name, buffer in network.named_buffers():
        buffer.copy_(golden.weight(name, buffer.shape))
    network.train(about["mode"] == "train")
    network.zero_grad()
    x = golden.tensor(about["input"]).requires_grad_()

    out = network(x)
    golden.projected(about["projection"], out).backward()

    assert list(out.shape) == about["output_shape"]
    assert network.channels == out.shape[1]
    golden.check(f"{case}.out", out)
    golden.check(f"{case}.grad.x", x.grad)
    parameters = dict(network.named_parameters())
    for name in golden.about["gradient_parameters"]:
        golden.check(f"{case}.grad.{name}", parameters[name].grad)
    if about["mode"] == "train":
        golden.check_buffers(f"{case}.after.", network.state_dict())
