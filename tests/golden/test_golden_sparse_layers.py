"""Single sparse layers reproduce MinkowskiEngine's: order of offsets, coordinates, gradients."""

import numpy as np
import pytest
import torch
from golden_vectors import Golden, cases

from pri3d.sparse.convolution import SparseConv, SparseConvTranspose
from pri3d.sparse.coordinates import SparseTensor, merge_duplicates
from pri3d.sparse.kernel_map import kernel_map, kernel_offsets

pytestmark = pytest.mark.golden


def layer_of(about: dict) -> torch.nn.Module:
    size, stride, dilation = (about[key][0] for key in ("kernel_size", "stride", "dilation"))
    shape = about["kernel_shape"]
    if about["transpose"]:
        layer = SparseConvTranspose(*shape[-2:], size, stride, bias=about["bias"])
    else:
        layer = SparseConv(*shape[-2:], size, stride, dilation, about["bias"])
    assert list(layer.kernel.shape) == shape
    return layer.double()


def pairs_per_offset(x: SparseTensor, about: dict) -> list[int]:
    size, stride, dilation = (about[key][0] for key in ("kernel_size", "stride", "dilation"))
    if about["transpose"]:
        rows = kernel_map(x.cache, x.stride // stride, size, stride, dilation).transposed()
    else:
        rows = kernel_map(x.cache, x.stride, size, stride, dilation)
    pairs = [0] * len(rows.differences_K)
    for k, start, end in rows.pairs().blocks_B3.tolist():
        pairs[k] += end - start
    if rows.identity is not None:
        pairs[rows.identity] = rows.n_inputs
    return pairs


@pytest.mark.parametrize(("file", "case"), cases("03_me_layers"))
def test_layer(file, case):
    golden = Golden(file)
    about = golden.about["cases"][case]
    coordinates = golden.tensor(about["coords"])
    features = golden.tensor(f"{case}.feats").requires_grad_()
    x = SparseTensor(coordinates, features)
    layers = {}
    for layer_about in about["layers"]:
        layer = layers[layer_about["layer"]] = layer_of(layer_about)
        for name, parameter in layer.named_parameters():
            weight = golden.weight(f"{case}.{layer_about['layer']}.{name}", parameter.shape)
            parameter.data.copy_(weight)
        assert pairs_per_offset(x, layer_about) == layer_about["pairs_per_offset"]
        x = layer(x)
        assert len(x.features) == layer_about["rows"]
        assert x.stride == layer_about["tensor_stride"]
    order = np.lexsort(x.coordinates.numpy().T[::-1])
    out = x.features[torch.from_numpy(order)]
    golden.projected(about["projection"], out).backward()

    assert np.array_equal(x.coordinates[order], golden.arrays[f"{case}.out.coords"])
    golden.check(f"{case}.out", out)
    golden.check(f"{case}.grad.feats", features.grad)
    for name, layer in layers.items():
        for leaf, parameter in layer.named_parameters():
            golden.check(f"grad.{case}.{name}.{leaf}", parameter.grad)


@pytest.mark.parametrize("file", sorted({case.values[0] for case in cases("03_me_layers")}))
def test_offsets_and_duplicates(file):
    golden = Golden(file)
    for size, offsets in golden.about["kernel_offset_order"].items():
        assert kernel_offsets(int(size)).tolist() == offsets
    cells_N3 = golden.tensor("quantize.in")
    cells_N4 = torch.nn.functional.pad(cells_N3, (1, 0))
    cells, _, first, cell = merge_duplicates(cells_N4, torch.ones(len(cells_N4), 1))
    assert np.array_equal(first, golden.arrays["quantize.index"])
    assert np.array_equal(cells[:, 1:], golden.arrays["quantize.coords"])
    assert torch.equal(cells[cell], cells_N4)
