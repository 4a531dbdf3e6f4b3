"""A results folder with everything that the report can show, and its page."""

import shutil

import h5py
import numpy as np
import pytest
from small_results import benchmark, cameras, make_evaluation, make_page, make_run, make_stages
from small_scenes import look

from pri3d import config, store
from pri3d.stages import pairs

NASTY = "a<b>&'c\"$x$"  # a file name may contain all of these
# The color camera of one scan, far from the depth camera, and rotated.
COLOR_FROM_DEPTH = look((0.12, -0.08, 0.03), 0.1) @ np.linalg.inv(look((0, 0, 0), 0))


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Four scans (good, damaged, unreadable, missing), a run, an evaluation, measurements."""
    folder = tmp_path_factory.mktemp("report") / "results"
    make_stages(folder, NASTY, cameras=cameras(5))
    with h5py.File(folder / f"clouds/{NASTY}.h5", "r+") as file:
        file.attrs["color_from_depth"] = COLOR_FROM_DEPTH
    make_stages(
        folder,
        "partly",
        cameras=cameras(3),
        status="partial: 1 of 4 frames are damaged",
        dropped=((1, b"cut"),),
    )
    make_stages(folder, "ruined", cameras=[], status="failed: no .sens file", dropped=())
    files = sorted((folder / "overlap").glob("*.h5"))
    pairs.run(files, folder / "pairs.h5", config.Pairs(), missing=["lost"])
    make_run(folder / "runs/joint", store.artefact_digest(folder / "pairs.h5"))
    header = {"name": "joint", "mode": "joint", "variant": "joint", "seed": 0}
    make_evaluation(folder / "evaluation/joint.json", NASTY, header)
    for stage in ("clouds", "overlap", "chunks"):
        benchmark(folder / f"benchmarks/{stage}/{NASTY}.tsv", 1.25, "321.5")
        benchmark(folder / f"benchmarks/{stage}/partly.tsv", 0.5, "NA")
    benchmark(folder / "benchmarks/pairs.tsv", 0.75, "55.0")
    benchmark(folder / "benchmarks/report.tsv", 777, "777.0")
    return folder


@pytest.fixture
def copy(results, tmp_path):
    """A copy of the results, to change."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="session")
def page(results):
    return make_page(results)
