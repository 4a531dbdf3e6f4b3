"""Stage overlap: `clouds/<scene>.h5` -> `overlap/<scene>.h5`, matches of all pairs of frames."""

from pathlib import Path

import numpy as np

from pri3d import config, store
from pri3d.artefacts import OVERLAP, Clouds
from pri3d.matching.official import count_thinned_matches
from pri3d.matching.overlap import count_matches


def run(clouds: Path, out: Path, settings: config.Overlap, threads: int = 1) -> None:
    """Count the matches of all ordered pairs of frames of one scan.

    Rule "paper": every depth pixel, distance < radius_m, both directions. Rule "official": the
    published script's thinned clouds and its own radius. The result is the same for any number of
    threads.

    Args:
        clouds: a `clouds` artefact.
        out: the `overlap` artefact.
        settings: section `overlap` of the settings.
        threads: number of threads.

    Raises:
        Pri3DError: the `clouds` artefact is missing or damaged.
    """
    with Clouds(clouds) as source:
        if settings.rule == "paper":
            points = source.points
            views = [source.view(row) for row in range(len(source))]
            matches = count_matches(views, settings.radius_m, threads)
        else:
            points, matches = count_thinned_matches(
                [source.cloud(row) for row in range(len(source))]
            )
        with store.publish(
            out, OVERLAP, settings.model_dump(), inputs={"clouds": source.digest}
        ) as artefact:
            for name in ("scene", "status", "frames_in_scan", "frames_in"):
                artefact.attribute(name, source.file.attrs[name])
            artefact.dataset("frames/index", source.index)
            artefact.dataset("points", points.astype(np.uint32))
            artefact.dataset("matches", matches, compress=True)
            artefact.dataset("dropped/index", source.file["dropped/index"][()])
            artefact.dataset("dropped/reason", source.file["dropped/reason"][()])
