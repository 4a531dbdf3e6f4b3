"""Scan folders in both layouts."""

import pytest

from pri3d.errors import Pri3DError
from pri3d.sources.find import find_scans


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_both_layouts_sorted_with_their_surfaces(tmp_path):
    nested = touch(tmp_path / "scene0002_00/scene0002_00.sens")
    surface = touch(tmp_path / "scene0002_00/scene0002_00_vh_clean_2.ply")
    flat = touch(tmp_path / "scene0001_00.sens")
    touch(tmp_path / "scene0002_00_vh_clean_2.ply")  # beside nothing
    scan_of_id = find_scans(tmp_path)
    assert list(scan_of_id) == ["scene0001_00", "scene0002_00"]
    assert scan_of_id["scene0001_00"] == (flat, None)
    assert scan_of_id["scene0002_00"] == (nested, surface)


def test_flat_surface(tmp_path):
    touch(tmp_path / "a.sens")
    surface = touch(tmp_path / "a_vh_clean_2.ply")
    assert find_scans(str(tmp_path))["a"].surface == surface


def test_what_is_no_scan_is_left_alone(tmp_path):
    touch(tmp_path / "a/a.sens")
    touch(tmp_path / "a/copy.sens")  # a scene's folder holds the scan of its own name
    touch(tmp_path / "._a.sens")  # what file systems leave behind
    (tmp_path / "folder.sens").mkdir()
    touch(tmp_path / "deeper/still/still.sens")
    assert list(find_scans(tmp_path)) == ["a"]


def test_same_scene_twice(tmp_path):
    touch(tmp_path / "a.sens")
    touch(tmp_path / "a/a.sens")
    with pytest.raises(Pri3DError, match=r"scene a is also at .*a\.sens; remove one"):
        find_scans(tmp_path)


def test_empty_and_missing_folder(tmp_path):
    with pytest.raises(Pri3DError, match="no scans, neither"):
        find_scans(tmp_path)
    with pytest.raises(Pri3DError, match="no such folder"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(Pri3DError, match="no such folder"):
        find_scans(touch(tmp_path / "file"))
