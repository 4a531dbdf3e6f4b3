"""Find the scans in a folder."""

from pathlib import Path
from typing import NamedTuple

from pri3d.errors import Pri3DError

SURFACE_SUFFIX = "_vh_clean_2.ply"


class Scan(NamedTuple):
    """The files of one scan; surface is None if the scan has none."""

    sens: Path
    surface: Path | None


def find_scans(root: str | Path) -> dict[str, Scan]:
    """Find all scans under `root`, in ScanNet's layout or flat.

    A scan is `<root>/<scene>/<scene>.sens` or `<root>/<scene>.sens`; the scene id is the file's
    stem. Its surface is `<scene>_vh_clean_2.ply` beside the `.sens` file. Hidden files are ignored.

    Returns:
        Scene id -> Scan, sorted by id.

    Raises:
        Pri3DError: the folder is missing, contains no scan, or contains a scene twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise Pri3DError(f"{root}: no such folder; set `scans` to the folder that holds the scans")
    flat = sorted(root.glob("*.sens"))
    nested = [path for path in sorted(root.glob("*/*.sens")) if path.stem == path.parent.name]
    scans: dict[str, Scan] = {}
    for path in flat + nested:
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in scans:
            raise Pri3DError(
                f"{path}: scene {path.stem} is also at {scans[path.stem].sens}; remove one of them"
            )
        surface = path.with_name(path.stem + SURFACE_SUFFIX)
        scans[path.stem] = Scan(path, surface if surface.is_file() else None)
    if not scans:
        raise Pri3DError(
            f"{root}: no scans, neither <scene>/<scene>.sens nor <scene>.sens; "
            "set `scans` to the folder that holds them"
        )
    return dict(sorted(scans.items()))
