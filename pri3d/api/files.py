"""Open whatever the pipeline reads or writes."""

from pathlib import Path

from pri3d.artefacts import (
    CHUNKS,
    CLOUDS,
    OVERLAP,
    PAIRS,
    Chunks,
    Clouds,
    Overlap,
    Pairs,
    artefact_format,
)
from pri3d.errors import Pri3DError
from pri3d.run.folder import Run, is_run, read_run
from pri3d.sources.sens import SensFile

Opened = SensFile | Clouds | Overlap | Pairs | Chunks | Run

_READERS: dict[str, type[Clouds] | type[Overlap] | type[Pairs] | type[Chunks]] = {
    CLOUDS: Clouds,
    OVERLAP: Overlap,
    PAIRS: Pairs,
    CHUNKS: Chunks,
}


def open(path: str | Path) -> Opened:
    """Open a scan, an artefact or a run.

    Args:
        path: a `.sens` file, the folder of one scan (`<scene>/<scene>.sens`), an artefact
            (`clouds`, `overlap`, `pairs`, `chunks`), or the folder of a run.

    Returns:
        SensFile, Clouds, Overlap, Pairs, Chunks or Run. All but Run are context managers that hold
        the file open.

    Raises:
        Pri3DError: there is no such file, it is of another kind, or it is damaged.

    Example:
        >>> with pri3d.open("results/pairs.h5") as pairs:  # doctest: +SKIP
        ...     print(len(pairs.a), "pairs in", len(pairs.scenes), "scans")
    """
    path = Path(path)
    if path.is_dir():
        if is_run(path):
            return read_run(path)
        scan = path / f"{path.resolve().name}.sens"
        if scan.is_file():
            return SensFile(scan)
        raise Pri3DError(
            f"{path}: is neither the folder of a run nor of a scan ({scan.name} is missing); give "
            "a file or one of these folders"
        )
    if not path.exists():
        raise Pri3DError(f"{path}: no such file or folder")
    if path.suffix == ".sens":
        return SensFile(path)
    kind = artefact_format(path)
    if kind not in _READERS:
        raise Pri3DError(f"{path}: holds {kind!r}, none of {', '.join(_READERS)}; give one of them")
    return _READERS[kind](path)
