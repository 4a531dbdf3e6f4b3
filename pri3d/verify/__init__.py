"""Verification of artefacts: checksums, schema, digest, and recomputed counts.

The inputs of an artefact are compared with it if they are in the usual places (`clouds/`,
`overlap/`, `pairs.h5` and `chunks/` in one folder). Sampled counts of matches are recomputed with
a KD-tree, independently of the code that computed them.
"""

from pathlib import Path

from pri3d import store
from pri3d.artefacts import CHUNKS, CLOUDS, OVERLAP, PAIRS, artefact_format
from pri3d.errors import Pri3DError
from pri3d.verify import chunks, clouds, overlap, pairs, runs
from pri3d.verify.schema import check_schema


def verify(path: str | Path, beside: str | Path | None = None, deep: bool = False) -> list[str]:
    """Verify an artefact, or the folder of a run.

    Args:
        path: the artefact or the folder.
        beside: the folder with `clouds/`, `overlap/`, `pairs.h5` and `chunks/`; by default the one
            that contains the artefact.
        deep: recompute all counts and check all frames, not samples.

    Returns:
        One sentence per check.

    Raises:
        Pri3DError: a check failed; with the artefact, the data set and the row.
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
    passed = f"{format} with digest {digest[:12]}: checksums and schema hold"
    return [passed, *checks[format](path, Path(beside or folder), deep)]
