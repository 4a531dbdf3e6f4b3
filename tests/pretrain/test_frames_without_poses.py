"""A scan whose poses are all lost trains what needs none."""

import json

import numpy as np
from make_artefacts import read_metrics
from typer.testing import CliRunner

from pri3d.artefacts import Clouds
from pri3d.cli import app
from pri3d.config import MODES
from pri3d.sources.sens import SensFile

LOST = np.full(16, -np.inf, "<f4").tobytes()


def command(*words) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception:
        raise result.exception
    return result.output


def test_a_scan_without_poses_trains_all_that_needs_single_frames(tmp_path):
    command("demo", tmp_path / "demo", "--scans", 1, "--frames", 6, "--height", 48,
            "--color-height", 48)  # fmt: skip
    (scan,) = (tmp_path / "demo").glob("*/*.sens")
    data = scan.read_bytes()
    with SensFile(scan) as sens:
        for number in range(len(sens)):
            data = data.replace(sens.world_from_camera(number).astype("<f4").tobytes(), LOST)
    scan.write_bytes(data)
    out = tmp_path / "clouds" / f"{scan.stem}.h5"
    command("clouds", scan, out, "--every", 1)
    with Clouds(out) as clouds:
        frames = len(clouds.unposed)
        assert len(clouds) == 0
        assert 0 < frames <= 6
    assert f"{frames} frames without a pose" in command("verify", out)
    small = {"height": 64, "width": 96, "steps": 2, "batch": 2, "workers": 0, "threads": 1}
    small |= {"device": "cpu", "teacher": "resnet18_half", "frame_voxel_m": 0.1, "matches": 16}
    small |= {
        "network3d": {"widths": [8] * 8, "blocks": [1] * 8},
        "projection_channels": 8,
        "log_every": 1,
    }
    for mode in [name for name, mode in MODES.items() if mode.teacher]:
        settings = [f"--set={name}={json.dumps(value)}" for name, value in small.items()]
        run = tmp_path / "runs" / mode
        command("pretrain", "--mode", mode, "--clouds", out.parent, "--out", run, *settings)
        rows = read_metrics(run)
        assert [row["pairs"] for row in rows] == [2, 4]
        assert rows[-1]["skipped"] == {}
