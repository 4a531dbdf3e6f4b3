"""The overlap artefact."""

import numpy as np
import pytest

from pri3d import artefacts, config, store
from pri3d.errors import Pri3DError
from pri3d.stages import overlap


@pytest.fixture
def clouds(tmp_path):
    """Three frames of a wall at 2 m, each 1 cm further right, and what `clouds` says of them."""
    path = tmp_path / "clouds" / "wall.h5"
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = 0, 0.01, 0.02
    depth = np.full((3, 24, 32), 2000, np.uint16)
    K = np.diag([30.0, 30, 1, 1])
    K[:2, 2] = 15.5, 11.5
    with store.publish(path, artefacts.CLOUDS, {}, {"scan": "0"}) as out:
        for name, value in {
            "scene": "wall",
            "status": "partial: frame 25 has no depth",
            "frames_in_scan": 100,
            "frames_in": 4,
            "depth_shift": 1000.0,
            "depth_intrinsic": K,
            "color_intrinsic": K,
            "color_from_depth": np.eye(4),
            "color_shape": (24, 32),
        }.items():
            out.attribute(name, value)
        out.dataset("frames/index", np.array([0, 50, 75], np.uint32))
        out.dataset("frames/world_from_camera", poses)
        out.dataset("frames/depth", depth)
        out.dataset("frames/points", np.full(3, 24 * 32, np.uint32))
        out.dataset("frames/color", np.zeros(0, np.uint8))
        out.dataset("frames/color_offset", np.zeros(4, np.uint64))
        out.dataset("dropped/index", np.array([25], np.uint32))
        out.dataset("dropped/reason", np.array([b"no_depth"], "S24"))
    return path


def test_artefact_of_a_wall(clouds, tmp_path):
    out = tmp_path / "overlap.h5"
    overlap.run(clouds, out, config.Overlap())
    with artefacts.Overlap(out) as result:
        assert result.scene == "wall"
        assert result.index.tolist() == [0, 50, 75]
        assert result.points.dtype == result.matches.dtype == np.uint32
        assert result.points.tolist() == [768] * 3
        # Pixels are 6.7 cm apart on the wall: a shift of 1 cm matches all, 2 cm is the limit.
        assert result.matches[0].tolist()[:2] == [0, 768]
        assert result.matches[1].tolist() == [768, 0, 768]
        assert result.file.attrs["frames_in"] == 4
        assert result.file["dropped/reason"][0] == b"no_depth"
        assert result.inputs == {"clouds": store.artefact_digest(clouds)}
        assert result.settings == {"radius_m": 0.02, "rule": "paper"}
    assert store.check_content(out, artefacts.OVERLAP)


def test_official_rule_counts_thinned_clouds(clouds, tmp_path):
    overlap.run(clouds, tmp_path / "overlap.h5", config.Overlap(rule="official"))
    with artefacts.Overlap(tmp_path / "overlap.h5") as result:
        assert result.points.tolist() == [768] * 3  # pixels are further apart than 5 cm
        assert (result.matches + 768 * np.eye(3) == 768).all()


def test_not_a_clouds_file(tmp_path):
    (tmp_path / "other.h5").write_bytes(b"not hdf5")
    with pytest.raises(Pri3DError, match=r"other\.h5.*remove it"):
        overlap.run(tmp_path / "other.h5", tmp_path / "out.h5", config.Overlap())
    assert not (tmp_path / "out.h5").exists()
