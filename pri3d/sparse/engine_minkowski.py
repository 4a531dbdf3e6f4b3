"""Sparse convolutions by MinkowskiEngine 0.5.4 (Choy et al., CVPR 2019), on the CPU.

Its coordinate manager is kept in the cache of a tensor, with the cells of each level in the order
of our rows, so that features have the same rows as with the other engines.
"""

from __future__ import annotations

import collections
import collections.abc
import warnings

from torch import Tensor

from pri3d.errors import Pri3DError
from pri3d.sparse.coordinates import Cache, SparseTensor, coarser_level

# MinkowskiEngine imports it from where Python 3.9 had it.
collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The MinkowskiEngine was compiled with CPU_ONLY flag")
        import MinkowskiEngine as ME
    from MinkowskiEngineBackend._C import ConvolutionMode
except ImportError as error:
    raise Pri3DError(
        f"sparse.engine: MinkowskiEngine cannot be imported ({error}); run `make minkowski`, or "
        "choose torch"
    ) from None
finally:
    del collections.Sequence  # type: ignore[attr-defined]


def convolve(
    x: SparseTensor,
    kernel_KIO: Tensor,
    size: int,
    stride: int = 1,
    dilation: int = 1,
    transposed: bool = False,
) -> Tensor:
    """Sparse convolution of a tensor: features [n_outputs, O] (see `convolution`).

    The type, float32 or float64, is that of the weights, also under autocast.

    Raises:
        Pri3DError: the tensor is not on the CPU.
    """
    if x.features.device.type != "cpu":
        raise Pri3DError(
            f"sparse.engine: MinkowskiEngine computes on the CPU only, not on {x.features.device}; "
            "choose torch"
        )
    if transposed:
        out_stride, function = x.stride // stride, ME.MinkowskiConvolutionTransposeFunction
    else:
        out_stride, function = x.stride * stride, ME.MinkowskiConvolutionFunction
        coarser_level(x.cache, x.stride, stride)
    in_key, out_key = _key(x.cache, x.stride), _key(x.cache, out_stride)
    region = ME.KernelGenerator(size, stride, dilation, dimension=3)
    return function.apply(
        x.features.to(kernel_KIO.dtype),
        kernel_KIO,
        region,
        ConvolutionMode.DEFAULT,
        in_key,
        out_key,
        _manager(x.cache),
    )


def _manager(cache: Cache) -> ME.CoordinateManager:
    name = ("minkowski",)
    if name not in cache.kernel_maps:
        cache.kernel_maps[name] = ME.CoordinateManager(D=3)
    return cache.kernel_maps[name]


def _key(cache: Cache, stride: int) -> ME.CoordinateMapKey:
    """The manager's key of a level. Rows keep their order because no cell occurs twice."""
    name = ("minkowski", stride)
    if name not in cache.kernel_maps:
        cells_N4 = cache.levels[stride].coordinates_N4.int().contiguous()
        cache.kernel_maps[name], _ = _manager(cache).insert_and_map(cells_N4, stride)
    return cache.kernel_maps[name]
