"""What a job of each stage costs on a scan of 66 frames: CPU-seconds, peak memory, bytes.

    python benchmarks/stages.py [--data DIR] [--json FILE]

Runs the command line as the workflow does, one process a stage, one thread, start of Python
included, files in the page cache. The scans are written from real frames: 66 of the red kitchen
(640x480), and as many with colour of 1296x968, which is ScanNet's size. Needs a folder with
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

from pri3d.sources.sens import SensFile, write_sens

FRAMES = 66  # of ScanNet's scans on average, every 25th taken
JOBS = {
    "warm": "overlap {folder}/few.h5 {folder}/warm.h5",  # from here on numba's cache is filled
    "clouds": "clouds {folder}/wide.sens {folder}/wide.h5 --every 1",
    "clouds, 640x480 colour": "clouds {folder}/kitchen.sens {folder}/clouds.h5 --every 1",
    "overlap": "overlap {folder}/clouds.h5 {folder}/overlap.h5",
    "chunks": "chunks {folder}/clouds.h5 {folder}/chunks.h5 --surface {surface}",
    "chunks, fused": "chunks {folder}/clouds.h5 {folder}/fused.h5",
}


def job(words: list[str]) -> dict:
    """CPU-seconds and peak memory of `pri3d ...`, and the bytes of what it made."""
    process = subprocess.Popen([sys.executable, "-m", "pri3d", *words])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"pri3d {' '.join(words)} failed")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "peak_mb": round(used.ru_maxrss / 1024, 1),
        "bytes": Path(words[2]).stat().st_size,
    }


def write_scan(source: Path, out: Path) -> None:
    """66 frames of a scan, evenly spread; of a shorter one some frames more than once."""
    with SensFile(source) as sens:
        frames = (sens.frame(i * len(sens) // FRAMES) for i in range(FRAMES))
        write_sens(out, sens.header, frames)


def measure(data: Path, folder: Path) -> dict:
    kitchen = data / "scans" / "redkitchen"
    write_scan(kitchen / "redkitchen.sens", folder / "kitchen.sens")
    write_scan(data / "sens-valid" / "color1296_20f.sens", folder / "wide.sens")
    job(["clouds", str(folder / "kitchen.sens"), str(folder / "few.h5"), "--every", "33"])
    places = {"folder": folder, "surface": kitchen / "redkitchen_vh_clean_2.ply"}
    found = {
        name: job([word.format(**places) for word in words.split()]) for name, words in JOBS.items()
    }
    del found["warm"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("PRI3D_REAL_DATA", "."))
    parser.add_argument("--data", type=Path, default=default, help="folder with the real scans")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if not (options.data / "scans" / "redkitchen").is_dir():
        parser.exit(0, f"{options.data}: no scans/redkitchen there; nothing measured\n")
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with tempfile.TemporaryDirectory(prefix="pri3d-stages-") as folder:
        result = {
            "date": datetime.date.today().isoformat(),
            "cores": os.cpu_count(),
            "frames": FRAMES,
            "jobs": measure(options.data, Path(folder)),
        }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
