"""The cost of a job of each stage on a scan of 66 frames: CPU-seconds, peak memory, bytes.

    python benchmarks/stages.py [--data DIR] [--json FILE] [--quick]

Runs the command line as the workflow does: one process per stage, one thread, files in the page
cache; the start of Python counts. The scans are written from real frames: 66 of the red kitchen
(640x480), and 66 with color images of 1296x968, which is ScanNet's size. Needs a folder with
scans/redkitchen/ and sens-valid/color1296_20f.sens (default $PRI3D_REAL_DATA).
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from commands import QUICK_HELP, make_quick_data, write_json

from pri3d.sources.sens import SensFile, write_sens

FRAMES = 66  # average of ScanNet's scans, every 25th frame
JOBS = {
    "warm": "overlap {folder}/few.h5 {folder}/warm.h5",  # fills numba's cache
    "clouds": "clouds {folder}/wide.sens {folder}/wide.h5 --every 1",
    "clouds, 640x480": "clouds {folder}/kitchen.sens {folder}/clouds.h5 --every 1",
    "overlap": "overlap {folder}/clouds.h5 {folder}/overlap.h5",
    "chunks": "chunks {folder}/clouds.h5 {folder}/chunks.h5 --surface {surface}",
    "chunks, fused": "chunks {folder}/clouds.h5 {folder}/fused.h5",
}


def job(words: list[str]) -> dict:
    """CPU-seconds and peak memory of `pri3d <words>`, and the bytes of its output."""
    process = subprocess.Popen([sys.executable, "-m", "pri3d", *words])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"pri3d {' '.join(words)} failed")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "peak_mb": round(used.ru_maxrss / 1024, 1),
        "bytes": Path(words[2]).stat().st_size,
    }


def write_scan(source: Path, out: Path, number: int) -> None:
    """Write evenly spaced frames of a scan; a shorter scan has some frames several times."""
    with SensFile(source) as sens:
        frames = (sens.frame(i * len(sens) // number) for i in range(number))
        write_sens(out, sens.header, frames)


def measure(data: Path, folder: Path, frames: int) -> dict[str, dict]:
    kitchen = data / "scans" / "redkitchen"
    write_scan(kitchen / "redkitchen.sens", folder / "kitchen.sens", frames)
    write_scan(data / "sens-valid" / "color1296_20f.sens", folder / "wide.sens", frames)
    every = str(frames // 2)
    job(["clouds", str(folder / "kitchen.sens"), str(folder / "few.h5"), "--every", every])
    paths = {"folder": folder, "surface": kitchen / "redkitchen_vh_clean_2.ply"}
    measured = {
        name: job([word.format(**paths) for word in words.split()]) for name, words in JOBS.items()
    }
    del measured["warm"]
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", "."))
    parser.add_argument("--data", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    options = parser.parse_args()
    frames = 4 if options.quick else FRAMES
    if not options.quick and not (options.data / "scans" / "redkitchen").is_dir():
        parser.exit(0, f"{options.data}: has no scans/redkitchen; nothing is measured\n")
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with tempfile.TemporaryDirectory(prefix="pri3d-stages-") as folder:
        data = make_quick_data(Path(folder) / "data", frames) if options.quick else options.data
        result = {
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
            "frames": frames,
            "jobs": measure(data, Path(folder), frames),
        }
    print(json.dumps(result, indent=1))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
