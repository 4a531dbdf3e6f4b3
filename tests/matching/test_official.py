"""The published overlap rule: thinning against open3d, counts against published figures."""

import numpy as np
import open3d
import pytest

from pri3d import config
from pri3d.artefacts import Overlap
from pri3d.matching.official import count_thinned_matches, thin
from pri3d.stages import clouds, overlap


def test_thinning_is_open3d_down_sampling():
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3)) * (1, 0.2, 2)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    expected = np.asarray(cloud.voxel_down_sample(0.05).points)
    got = thin(points)
    assert len(got) == len(expected)
    order = [np.lexsort(np.round(a, 9).T) for a in (got, expected)]
    np.testing.assert_allclose(got[order[0]], expected[order[1]], atol=1e-9)


def test_counts_by_brute_force_and_empty_clouds():
    rng = np.random.default_rng(1)
    clouds = [rng.uniform(0, 1, (n, 3)) for n in (400, 300, 0)]
    points, matches = count_thinned_matches(clouds)
    thinned = [thin(cloud) for cloud in clouds]
    assert points.tolist() == [len(cloud) for cloud in thinned]
    for i, a in enumerate(thinned):
        for j, b in enumerate(thinned):
            distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
            assert matches[i, j] == (0 if i == j else (distance < 0.075).any(axis=1).sum())


@pytest.mark.real
@pytest.mark.parametrize(("scan", "every"), [("redkitchen", 3), ("livingroom1", 10)])
def test_every_pair_of_the_published_lists(real_data, tmp_path, scan, every):
    sens = real_data / "scans" / scan / f"{scan}.sens"
    clouds.run(sens, tmp_path / "clouds.h5", config.Frames(every=every))
    overlap.run(
        tmp_path / "clouds.h5", tmp_path / "overlap.h5", config.Overlap(rule="official"), threads=2
    )
    with Overlap(tmp_path / "overlap.h5") as result:
        row = {int(frame): k for k, frame in enumerate(result.index)}
        share = result.matches / result.points[:, None]
    lines = (real_data / "reference" / f"{scan}_every{every}_official_overlap.txt").read_text()
    worst = 0.0
    for line in lines.splitlines():
        a, b, expected = line.split()
        a, b = (row[int(name.removesuffix(".npz"))] for name in (a, b))
        worst = max(worst, abs(max(share[a, b], share[b, a]) - float(expected)))
    assert len(lines.splitlines()) == len(row) * (len(row) - 1) // 2
    assert worst < 0.005
