"""Is an artefact what it should be? Checksums, schema, digest, and that its figures recompute.

Whatever an artefact was made from is consulted where it lies in the usual place (`clouds/`,
`overlap/`, `pairs.h5` and `chunks/` in one folder). Sampled counts of matches are recomputed with
a KD-tree, independently of the code that made them.
"""

from pathlib import Path

from pri3d import store
from pri3d.artefacts import CHUNKS, CLOUDS, OVERLAP, PAIRS, artefact_format
from pri3d.errors import Pri3DError
from pri3d.verify import chunks, clouds, overlap, pairs, runs
from pri3d.verify.schema import check_schema


def verify(path: str | Path, beside: str | Path | None = None, deep: bool = False) -> list[str]:
    """Check an artefact, or the folder of a run; returns what was checked, one sentence each.

    beside: the folder with `clouds/`, `overlap/`, `pairs.h5` and `chunks/`; default: the one that
    the artefact itself lies in. deep: recompute all counts and look at all frames instead of
    samples. Raises Pri3DError naming the artefact, the data set and the row at the first thing
    that is wrong.
    """
    path = Path(path)
    folder = path.absolute().parent.parent
    if path.is_dir():
        return runs.check_run(path, Path(beside or folder))
    checks = {
        CLOUDS: clouds.check_clouds,
        OVERLAP: overlap.check_overlap,
        PAIRS: pairs.check_pairs,
        CHUNKS: chunks.check_chunks,
    }
    format = artefact_format(path)
    if format not in checks:
        raise Pri3DError(f"{path}: holds {format!r}, none of {', '.join(checks)}; give one of them")
    if format == PAIRS:
        folder = path.absolute().parent
    digest = store.check_content(path, format)
    check_schema(path, format)
    said = [f"{format} with digest {digest[:12]}: checksums and schema hold"]
    return said + checks[format](path, Path(beside or folder), deep)
