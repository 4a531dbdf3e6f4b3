"""The 3D networks reproduce the published ones: names, levels, outputs, gradients, statistics."""

import numpy as np
import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.models.minkunet import minkunet
from pri3d.sparse.convolution import SparseBatchNorm
from pri3d.sparse.coordinates import SparseTensor

pytestmark = pytest.mark.golden


def network_of(golden: Golden) -> torch.nn.Module:
    about = golden.about["module"]
    with torch.device("meta"):
        network = minkunet(
            about["in_channels"],
            about["out_channels"],
            about["planes"],
            about["layers"],
            about["first_kernel"],
        ).double()
    network.to_empty(device="cpu")
    golden.fill(network)
    momentum = about["bn_momentum"]
    for name, module in network.named_modules():
        if isinstance(module, SparseBatchNorm):
            module.bn.eps = about["bn_eps"]
            module.bn.momentum = momentum[name] if isinstance(momentum, dict) else momentum
    return network


@pytest.mark.parametrize(("file", "case"), [*cases("02_minkunet*"), *cases("02_res*")])
def test_minkunet(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    network = network_of(golden).train(about["mode"] == "train")
    coordinates = golden.tensor("in.coords")
    features = golden.tensor("in.feats").requires_grad_()
    seen = {}
    for name in about.get("stages", {}):
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, out, name=name: seen.update({name: out})
        )

    out = network(SparseTensor(coordinates, features))

    assert torch.equal(out.coordinates, coordinates)
    order = np.lexsort(coordinates.numpy().T[::-1])
    sorted_out = out.features[torch.from_numpy(order)]
    golden.projected(about["projection"], sorted_out).backward()

    assert np.array_equal(coordinates[order], golden.arrays["out.coords"])
    golden.check(f"{case}.out", sorted_out)
    if f"{case}.out_normalized" in golden:
        unit = torch.nn.functional.normalize(sorted_out)
        golden.check(f"{case}.out_normalized", unit)
    golden.check(f"{case}.grad.feats", features.grad)
    parameters = dict(network.named_parameters())
    for name in golden.about["gradient_parameters"]:
        golden.check(f"{case}.grad.{name}", parameters[name].grad)
    for name, level in about.get("stages", {}).items():
        assert len(seen[name].features) == level["rows"], name
        assert seen[name].stride == level["tensor_stride"], name
    if about["mode"] == "train":
        golden.check_buffers(f"{case}.after.", network.state_dict(), inner="bn.")
