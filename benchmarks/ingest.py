"""Ingest of a long scan: bytes read, memory, time against whole-file readers, size of `clouds`.

    python benchmarks/ingest.py [--scan SCAN.sens] [--json FILE] [--quick]

Writes a scan of many frames from a real one (its frames repeated), or from synthetic frames without
one, and takes every n-th frame of it. Every measurement runs in a process of its own, on files in
the page cache. The peers read as the published reader does: every frame from first to last, each
payload through struct as one object per byte. One keeps the encoded frames and decodes the selected
ones; the other decodes all. Both only read, while `clouds` also compresses, writes and syncs its
artefact.
"""

import argparse
import datetime
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import QUICK_HELP, write_json
from machine import machine

GOAL_SHARE, GOAL_MEMORY_MB, GOAL_GB = 1 / 15, 200, 25
SCANNET_FRAMES, SCANNET_SCANS = 100_000, 1513


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, help="real scan to repeat (640x480, JPEG and zlib)")
    parser.add_argument("--wide", type=Path, help="scan with 1296x968 color, for the sizes")
    parser.add_argument("--frames", type=int, default=1000, help="frames of the scan to write")
    parser.add_argument("--every", type=int, default=25, help="take every n-th frame")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help=QUICK_HELP)
    parser.add_argument("--task", help=argparse.SUPPRESS)  # what a child process measures
    arguments = parser.parse_args()
    if arguments.task:
        measured = TASKS[arguments.task](arguments.scan, arguments.every)
        print(json.dumps(measured | {"peak_mb": peak_mb()}))
        return
    real = os.environ.get("PRI3D_REAL_DATA")
    if arguments.quick:
        arguments.frames, arguments.every = 8, 4
    elif real:
        arguments.scan = arguments.scan or Path(real, "scans/redkitchen/redkitchen.sens")
        arguments.wide = arguments.wide or Path(real, "sens-valid/color1296_20f.sens")
    with tempfile.TemporaryDirectory(prefix="pri3d-ingest-") as folder:
        found = measure(arguments, Path(folder))
    print("quick: it runs; no results" if arguments.quick else describe(found))
    write_json(arguments.json, found)


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    long, short, wide = folder / "long.sens", folder / "short.sens", folder / "wide.sens"
    write_repeated(arguments.scan, (480, 640), arguments.frames, long)
    write_repeated(arguments.scan, (480, 640), min(100, arguments.frames), short)
    wide_shape = (540, 720) if arguments.quick else (968, 1296)
    write_repeated(arguments.wide, wide_shape, min(20, arguments.frames), wide)
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "source": arguments.scan.name if arguments.scan else "synthetic frames",
        "source_wide": arguments.wide.name if arguments.wide else "synthetic frames",
        "frames": arguments.frames,
        "every": arguments.every,
        "file_bytes": long.stat().st_size,
    }
    for task in ("interpreter", "imports", "clouds", "peer_encoded", "peer_decoded"):
        found[task] = in_process(task, long, arguments.every)
    ours = found["clouds"]
    found["share_read"] = ours["sens_bytes_read"] / found["file_bytes"]
    found["memory_over_imports_mb"] = ours["peak_mb"] - found["imports"]["peak_mb"]
    found["memory_over_interpreter_mb"] = ours["peak_mb"] - found["interpreter"]["peak_mb"]
    for peer in ("peer_encoded", "peer_decoded"):
        found[f"times_faster_than_{peer}"] = found[peer]["seconds"] / ours["seconds"]
    found["size"] = {
        "640x480, color unchanged": in_process("sizes", short, 1),
        "1296x968, color reduced to a height of 480": in_process("sizes", wide, 1),
    }
    found["forecast"] = forecast(found["size"])
    return found


def forecast(size: dict) -> dict:
    """ScanNet at every 25th frame: depth as in the short scan, color as in the wide one."""
    kept, wide = size.values()
    per_frame = kept["depth_bytes"] + wide["color_bytes"]
    total = per_frame * SCANNET_FRAMES + kept["other_bytes_a_file"] * SCANNET_SCANS
    return {
        "frames": SCANNET_FRAMES,
        "scans": SCANNET_SCANS,
        "depth_bytes_a_frame": kept["depth_bytes"],
        "color_bytes_a_frame": wide["color_bytes"],
        "gigabytes": total / 1e9,
    }


def write_repeated(source: Path | None, color_shape: tuple, frames: int, out: Path) -> None:
    """Write a scan of `frames` frames: the source's, repeated."""
    from pri3d.sources.sens import SensFile, write_sens

    if source is None:
        header, stored = synthetic(color_shape)
        write_sens(out, header, (stored[n % len(stored)] for n in range(frames)))
        return
    with SensFile(source) as sens:
        write_sens(out, sens.header, (sens.frame(n % len(sens)) for n in range(frames)))


def synthetic(color_shape: tuple) -> tuple:
    """Header and ten frames of a textured slope with the depth steps of a sensor.

    They compress about as well as frames of a room.
    """
    import numpy as np

    from pri3d.sources.images import encode_color, encode_depth
    from pri3d.sources.sens import SensFrame, SensHeader

    rng = np.random.default_rng(0)
    K = np.diag([585.0, 585.0, 1.0, 1.0])
    K[:2, 2] = 320, 240
    color_K = K.copy()
    color_K[:2] *= color_shape[0] / 480
    frames = []
    for number in range(10):
        rows, columns = np.mgrid[:480, :640]
        depth = (1000 + 3 * rows + columns) // 6 * 6 + 6 * (rng.random((480, 640)) < 0.1)
        y, x = np.mgrid[: color_shape[0], : color_shape[1]]
        waves = [np.sin(x / (9 + c) + y / (31 - c) + number) for c in range(3)]
        noise = rng.normal(0, 4, (*color_shape, 3))
        rgb = np.clip(128 + 80 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
        frames.append(SensFrame(np.eye(4), encode_color(rgb), encode_depth(depth)))
    return SensHeader(color_shape, (480, 640), color_K, K), frames


def in_process(task: str, scan: Path, every: int) -> dict:
    command = [sys.executable, __file__, "--task", task, "--scan", scan, "--every", str(every)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


# --- tasks of the child processes --------------------------------------------------------------


def bare_interpreter(scan: Path, every: int) -> dict:
    return {}


def imports_only(scan: Path, every: int) -> dict:
    from pri3d.stages import clouds

    return {"module": clouds.__name__}


def run_clouds(scan: Path, every: int) -> dict:
    """Run the stage and count the bytes read.

    Reads of the scan are counted in os.pread. The kernel counts all reads of the process (rchar),
    which include those of the artefact for its digest.
    """
    from pri3d import config
    from pri3d.stages import clouds

    counted = 0
    pread = os.pread

    def counting(descriptor, length, offset):
        nonlocal counted
        data = pread(descriptor, length, offset)
        counted += len(data)
        return data

    os.pread = counting
    before, began = process_bytes_read(), time.perf_counter()
    clouds.run(scan, scan.with_suffix(".h5"), config.Frames(every=every))
    return {
        "seconds": time.perf_counter() - began,
        "sens_bytes_read": counted,
        "process_bytes_read": process_bytes_read() - before,
        "artefact_bytes": scan.with_suffix(".h5").stat().st_size,
    }


def whole_file(scan: Path, every: int, decode_all: bool) -> dict:
    import zlib

    import numpy as np
    import simplejpeg

    def unpack(file, form):
        return struct.unpack(form, file.read(struct.calcsize(form)))

    def decode(color, depth):
        return simplejpeg.decode_jpeg(color), np.frombuffer(zlib.decompress(depth), np.uint16)

    began, frames = time.perf_counter(), []
    with open(scan, "rb") as file:
        name_bytes = unpack(file, "<IQ")[1]
        file.seek(12 + name_bytes + 284)
        for _ in range(unpack(file, "<Q")[0]):
            file.seek(64 + 16, os.SEEK_CUR)
            color_bytes, depth_bytes = unpack(file, "<QQ")
            color = b"".join(unpack(file, f"<{'c' * color_bytes}"))
            depth = b"".join(unpack(file, f"<{'c' * depth_bytes}"))
            frames.append(decode(color, depth) if decode_all else (color, depth))
    selected = frames[::every]
    if not decode_all:
        selected = [decode(*frame) for frame in selected]
    return {"seconds": time.perf_counter() - began, "selected": len(selected)}


def sizes(scan: Path, every: int) -> dict:
    """Bytes per frame of the artefact by content, and the other bytes of the file."""
    from pri3d import artefacts, config
    from pri3d.stages import clouds

    out = scan.with_suffix(".h5")
    clouds.run(scan, out, config.Frames(every=every))
    with artefacts.Clouds(out) as found:
        depth = found.file["frames/depth"].id.get_storage_size()
        color = int(found.file["frames/color_offset"][-1])
        return {
            "frames": len(found),
            "depth_bytes": depth / len(found),
            "color_bytes": color / len(found),
            "other_bytes_a_file": out.stat().st_size - depth - color,
            "color_shape": found.color_shape,
            "source_color_bytes": source_color_bytes(scan),
        }


def source_color_bytes(scan: Path) -> float:
    from pri3d.sources.sens import SensFile

    with SensFile(scan) as sens:
        return sum(len(sens.color_bytes(n)) for n in range(len(sens))) / len(sens)


TASKS = {
    "interpreter": bare_interpreter,
    "imports": imports_only,
    "clouds": run_clouds,
    "peer_encoded": lambda scan, every: whole_file(scan, every, decode_all=False),
    "peer_decoded": lambda scan, every: whole_file(scan, every, decode_all=True),
    "sizes": sizes,
}


def process_bytes_read() -> int:
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])  # rchar


def peak_mb() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


# --- text --------------------------------------------------------------------------------------


def describe(found: dict) -> str:
    ours, machine, scannet = found["clouds"], found["machine"], found["forecast"]
    lines = [
        f"{found['date']}, {machine['cpu']}, {machine['cores']} cores",
        f"scan: {found['frames']} frames from {found['source']}, "
        f"{found['file_bytes'] / 1e6:.0f} MB, every {found['every']}",
        verdict(
            f"bytes read of the scan: {ours['sens_bytes_read'] / 1e6:.2f} MB, "
            f"1/{1 / found['share_read']:.1f} of it (all reads of the process: "
            f"{ours['process_bytes_read'] / 1e6:.2f} MB)",
            found["share_read"] <= GOAL_SHARE,
            f"1/{1 / GOAL_SHARE:.0f}",
        ),
        verdict(
            f"peak memory: {ours['peak_mb']:.0f} MB, {found['memory_over_interpreter_mb']:.0f} MB "
            f"above the interpreter, {found['memory_over_imports_mb']:.0f} MB above its imports",
            found["memory_over_interpreter_mb"] < GOAL_MEMORY_MB,
            f"{GOAL_MEMORY_MB} MB above the interpreter",
        ),
        f"time: {ours['seconds']:.2f} s, including writing the artefact",
    ]
    for peer, decoded in (("peer_encoded", "the selected frames"), ("peer_decoded", "all frames")):
        lines.append(
            f"    whole-file reader that decodes {decoded}: {found[peer]['seconds']:.2f} s "
            f"({found[f'times_faster_than_{peer}']:.0f} times the time), "
            f"{found[peer]['peak_mb']:.0f} MB"
        )
    for name, size in found["size"].items():
        lines.append(
            f"size per frame, {name}: depth {kB(size['depth_bytes'])}, "
            f"color {kB(size['color_bytes'])} ({kB(size['source_color_bytes'])} in the scan); "
            f"other bytes {kB(size['other_bytes_a_file'])} per file; "
            f"peak memory {size['peak_mb']:.0f} MB"
        )
    text = (
        f"forecast for {scannet['frames']} frames of {scannet['scans']} scans: "
        f"{scannet['gigabytes']:.1f} GB (per frame: depth {kB(scannet['depth_bytes_a_frame'])}, "
        f"color {kB(scannet['color_bytes_a_frame'])})"
    )
    lines.append(verdict(text, scannet["gigabytes"] < GOAL_GB, f"{GOAL_GB} GB"))
    return "\n".join(lines)


def kB(size: float) -> str:
    return f"{size / 1e3:.1f} kB"


def verdict(text: str, holds: bool, goal: str) -> str:
    return f"{text}; goal {goal}: {'reached' if holds else 'MISSED'}"


if __name__ == "__main__":
    main()
