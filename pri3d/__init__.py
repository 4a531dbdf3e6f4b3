"""Raw RGB-D scans in, contrastively pretrained 2D and 3D backbones out.

The names below are the public Python API (docs/python.md). They are imported when they are first
used, so that `import pri3d` loads neither numpy nor torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pri3d.api.files import open as open
    from pri3d.api.matches import Correspondences as Correspondences
    from pri3d.api.matches import correspondences as correspondences
    from pri3d.api.networks import Encoder as Encoder
    from pri3d.api.networks import load_backbone3d as load_backbone3d
    from pri3d.api.networks import load_encoder as load_encoder
    from pri3d.api.networks import sparse_cloud as sparse_cloud
    from pri3d.api.pairs import PairDataset as PairDataset
    from pri3d.api.pairs import PairItem as PairItem
    from pri3d.errors import Pri3DError as Pri3DError
    from pri3d.matching.overlap import count_matches as count_matches
    from pri3d.pretrain.losses import point_info_nce as point_info_nce

__version__ = "0.2.0.dev0"

# Public name -> the module that has it.
_PUBLIC = {
    "Correspondences": "pri3d.api.matches",
    "Encoder": "pri3d.api.networks",
    "PairDataset": "pri3d.api.pairs",
    "PairItem": "pri3d.api.pairs",
    "Pri3DError": "pri3d.errors",
    "correspondences": "pri3d.api.matches",
    "count_matches": "pri3d.matching.overlap",
    "load_backbone3d": "pri3d.api.networks",
    "load_encoder": "pri3d.api.networks",
    "open": "pri3d.api.files",
    "point_info_nce": "pri3d.pretrain.losses",
    "sparse_cloud": "pri3d.api.networks",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pri3d' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
