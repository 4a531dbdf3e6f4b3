"""The tables of the documentation, computed from the results of the benchmarks.

    python benchmarks/forecast.py            prints the tables
    python benchmarks/forecast.py --write    writes them into the pages, between their markers

Reads the JSON files of `MEASURED` in benchmarks/results.
"""

import argparse
import json
import re
import statistics
from pathlib import Path

from pri3d import config

ROOT = Path(__file__).parents[1]
SCANS, FRAMES = 1513, 100_000  # ScanNet: 2.5 million frames, every 25th
PAIRS = 840_000  # number of pairs in the paper
PAIR_BYTES = 5 * 4  # a, b, matches_ab, matches_ba, overlap
CORES = 16
MEASURED = (
    "ingest",
    "overlap",
    "stages",
    "sparse",
    "loading",
    "recall_real",
    "recall_demo",
    "effect",
    "effect3d",
    "gpu",
)


def forecast(measured: dict[str, dict]) -> str:
    """ScanNet's 1,513 scans, each with the average of 66 frames."""
    ingest, overlap, stages = (measured[name] for name in ("ingest", "overlap", "stages"))
    jobs, frames = stages["jobs"], stages["frames"]

    def row(name: str, gigabytes: float, cpu_s: float, memory_mb: float | None) -> list[str]:
        hours = cpu_s / 3600
        memory = f"{memory_mb:.0f} MB" if memory_mb else ""
        minutes = f"{hours * 60 / CORES:.0f} min"
        return [name, f"{gigabytes:.2f} GB", f"{hours:.1f} h", minutes, memory]

    def of_all(job: str) -> tuple[float, float]:
        """Gigabytes and CPU-seconds of all scans."""
        return jobs[job]["bytes"] * SCANS / 1e9, jobs[job]["cpu_s"] * SCANS

    all_pairs = SCANS * frames * (frames - 1)
    clouds = ingest["forecast"]["gigabytes"], of_all("clouds")[1]
    counts = (
        of_all("overlap")[0],
        overlap["cpu_s"] / overlap["directed_pairs"] * all_pairs,
    )
    chunks, fused = of_all("chunks"), of_all("chunks, fused")
    pairs = PAIRS * PAIR_BYTES / 1e9
    total = [sum(part) for part in zip(clouds, counts, (pairs, 0), chunks)]
    rows = [
        row("clouds", *clouds, jobs["clouds"]["peak_mb"]),
        row("overlap", *counts, jobs["overlap"]["peak_mb"]),
        ["pairs", f"{pairs:.2f} GB", "seconds", "", ""],
        row("chunks", *chunks, jobs["chunks"]["peak_mb"]),
        row("**all**", *total, None),
        row("chunks without surface files", *fused, jobs["chunks, fused"]["peak_mb"]),
    ]
    return table(["stage", "disk", "CPU time", f"on {CORES} cores", "memory per job"], rows)


def speed(measured: dict[str, dict]) -> str:
    overlap = measured["overlap"]
    rows = [["Pri3D, exact", f"{overlap['cpu_s']:.1f}", "1"]]
    for name, seconds in overlap["peers_cpu_s"].items():
        rows.append([name, f"{seconds:.0f}", f"{seconds / overlap['cpu_s']:.0f}"])
    machine = overlap["machine"]["cpu"]
    head = f"{overlap['frames']} frames, {overlap['directed_pairs']} directed pairs ({machine})"
    return table([head, "CPU-seconds", "relative to Pri3D"], rows)


def growth(measured: dict[str, dict]) -> str:
    overlap = measured["overlap"]
    rows = [
        [
            row["scene"],
            row["frames"],
            f"{row['cpu_s_1_threads']:.2f}",
            f"{row['ns_a_test']:.1f}",
            f"{100 * row['matched_share']:.0f} %",
            f"{row['wall_s_1_threads'] / row['wall_s_2_threads']:.1f}",
        ]
        for row in overlap["growth"]
    ]
    head = [
        "scene",
        "frames",
        "CPU-seconds",
        "ns per test",
        "tests that match",
        "speedup with 2 threads",
    ]
    return table(head, rows)


def reading(measured: dict[str, dict]) -> str:
    ingest = measured["ingest"]
    ours, long = ingest["clouds"], f"{ingest['file_bytes'] / 1e6:.0f} MB"
    rows = [
        [
            "`pri3d clouds`",
            f"{ours['sens_bytes_read'] / 1e6:.1f} of {long}",
            f"{ours['seconds']:.1f}",
            f"{ours['peak_mb']:.0f}",
        ]
    ]
    for peer, name in (
        ("peer_encoded", "whole-file reader, decodes the selected frames"),
        ("peer_decoded", "whole-file reader, decodes all frames"),
    ):
        peer = ingest[peer]
        rows.append([name, long, f"{peer['seconds']:.1f}", f"{peer['peak_mb']:.0f}"])
    head = f"{ingest['frames']} frames, every {ingest['every']}th selected"
    return table([head, "read", "seconds", "peak MB"], rows)


ENGINES = {
    "torch": "`torch`",
    "minkowski": "`minkowski`",
    "own layers": "MinkowskiEngine's own layers",
}


def engines(measured: dict[str, dict]) -> str:
    sparse = measured["sparse"]
    rows = []
    for threads, by_engine in sparse["threads"].items():
        for engine, name in ENGINES.items():
            if engine in by_engine:
                result = by_engine[engine]
                times = [f"{result[key]:.2f}" for key in ("forward_s", "backward_s", "both_s")]
                rows.append([name, threads, *times, result["peak_mb"]])
        floor = by_engine["floor"]
        name = f"floor: {floor['gflop']:.0f} GFLOP at {floor['gemm_gflops']:.0f} GFLOP/s"
        rows.append([name, threads, "", "", f"{floor['both_s']:.2f}", ""])
    head = f"{sparse['voxels']:,} voxels ({sparse['machine']['cpu']})"
    return table([head, "threads", "forward, s", "backward, s", "both, s", "MB"], rows)


def sizes(measured: dict[str, dict]) -> str:
    sparse = measured["sparse"]
    names = {key: name for key, name in ENGINES.items() if key in sparse["threads"]["1"]}
    rows = []
    for voxels, result in sparse["growth"].items():
        cells = [f"{result[key]['both_s']:.2f} s, {result[key]['peak_mb']} MB" for key in names]
        rows.append([f"{int(voxels):,}", *cells, f"{result['floor']['both_s']:.2f} s"])
    return table(["voxels", *names.values(), "floor"], rows)


def recall(measured: dict[str, dict]) -> str:
    """Recall of matches in scans that were not trained on: means over seeds."""
    rows = []
    for name in ("recall_real", "recall_demo"):
        for mode, result in measured[name]["summary"].items():
            percent = [
                " / ".join(f"{100 * result[f'{measure}_{when}']:.1f}" for measure in RECALLED)
                for when in ("before", "after", "chance")
            ]
            ratio = f"{result['recall_1_ratio_least']:.1f} to {result['recall_1_ratio_most']:.1f}"
            rows.append([mode, result["seeds"], *percent, ratio, result["minutes_most"]])
    head = ["mode, kind of match, scans", "seeds", "before, %", "after, %", "chance, %"]
    return table([*head, "gain in recall at 1", "max. minutes"], rows)


RECALLED = ("recall_1", "recall_3", "recall_5", "top1")


def loading(measured: dict[str, dict]) -> str:
    rows = []
    names = {
        "ours": "Pri3D",
        "reopened": "Pri3D, scans opened for each sample",
        "published": "published method",
        "published_unique_rows": "published method, `np.unique` over rows",
    }
    for scan in ("redkitchen", "livingroom1"):
        result = measured["loading"][scan]
        for key, name in names.items():
            parts = ", ".join(f"{n} {v:.1f}" for n, v in result[key].get("parts_ms", {}).items())
            rate = result[key]["samples_a_second"]
            ratio = rate / result["published"]["samples_a_second"]
            rows.append([scan, name, f"{rate:.1f}", f"{ratio:.1f}", parts])
    head = ["scan", "method", "samples/s per core", "relative to published", "ms per sample"]
    return table(head, rows)


def gpu_networks(measured: dict[str, dict]) -> str:
    rows = []
    for name, result in measured["gpu"]["networks"].items():
        voxels, precision = name.split(", ")
        cells = []
        for engine in ("torch", "triton"):
            forward, both = (
                statistics.median(result[engine][key]) for key in ("forward_ms", "both_ms")
            )
            cells.append(f"{forward:.0f} / {both:.0f} ms, {result[engine]['peak_mb']} MB")
        rows.append([f"{int(voxels):,}", precision, *cells, f"{result['floor']['both_ms']:.1f} ms"])
    return table(["voxels", "type", "`torch`", "`triton`", "dense matrix product"], rows)


def gpu_steps(measured: dict[str, dict]) -> str:
    rows = []
    for name, result in sorted(measured["gpu"]["steps"].items()):
        mode, engine, precision = name.split(", ")
        wait = f"{100 * result['data_wait_share']:.1f} %"
        numbers = [f"{result['ms_a_step']:.0f}", f"{result['samples_per_s']:.0f}", wait]
        engine = "" if mode == "view" else f"`{engine}`"
        rows.append([f"`{mode}`", engine, precision, *numbers, result["gpu_memory_mb"]])
    head = ["mode", "engine", "type", "ms per step of 8", "samples/s", "waiting for data", "MB"]
    return table(head, rows)


# Preset and mode -> the measured step that its forecast uses.
GPU_STEPS = {
    ("paper", "view"): "view, torch, float32",
    ("paper", "geo"): "geo, triton, bf16",
    ("paper", "joint"): "joint, triton, float32",
    ("ppkt", "ppkt"): "ppkt, triton, bf16",
}
STEP_SAMPLES = 8  # of a measured step


def gpu_cost(measured: dict[str, dict]) -> str:
    """Hours of whole pretrainings, from the time of one step of eight samples."""
    rows = []
    for (preset, mode), name in GPU_STEPS.items():
        settings = config.parse(config.with_preset({"preset": preset})).of_variant(mode)
        result = measured["gpu"]["steps"][name]
        seconds = settings.steps * settings.batch / STEP_SAMPLES * result["ms_a_step"] / 1000
        memory = f"{result['gpu_memory_mb'] / 1000:.1f} GB"
        length = f"{settings.steps:,} steps of {settings.batch}"
        hours = [f"{seconds / 3600:.0f} h", f"{seconds / 3600 / 8:.1f} h"]
        rows.append([f"`{preset}`", f"`{mode}`", length, name.split(", ")[2], *hours, memory])
    head = ["preset", "mode", "length", "2D network in", "1 GPU", "8 GPUs, at best", "GPU memory"]
    return table(head, rows)


def effect(measured: dict[str, dict]) -> str:
    """mIoU in unseen rooms, and its gain over scratch, paired by the labels."""
    return _gains(measured["effect"]["summary"])


def effect3d(measured: dict[str, dict]) -> str:
    """As `effect`, of 3D networks."""
    return _gains(measured["effect3d"]["summary"])


def _gains(summary: dict[str, dict]) -> str:
    shares = list(dict.fromkeys(name.split(", ", 1)[0] for name in summary))
    weights = list(dict.fromkeys(name.split(", ", 1)[1] for name in summary))
    rows = []
    for name in weights:
        row = [name]
        for share in shares:
            entry = summary.get(f"{share}, {name}")
            if entry is None:
                row += ["", ""]
                continue
            row.append(_with_error(entry["miou"]))
            gain = entry.get("gain")
            row.append("" if gain is None else f"{_with_error(gain, '+')} (n = {gain['n']})")
        rows.append(row)
    head = [
        "initial weights",
        *(word for share in shares for word in (f"{share}: mIoU, %", "gain")),
    ]
    return table(head, rows)


def _with_error(value: dict, sign: str = "") -> str:
    error = value["standard_error"]
    return f"{value['mean']:{sign}.2f}" + ("" if error is None else f" ± {error:.2f}")


def table(head: list, rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


TABLES = {
    "README.md": (forecast, gpu_cost),
    "docs/overlap.md": (speed, growth),
    "docs/sens.md": (reading,),
    "docs/sparse.md": (engines, sizes, gpu_networks, gpu_steps),
    "docs/pretraining.md": (recall, loading),
    "docs/ppkt.md": (effect3d,),
    "docs/finetuning.md": (effect,),
}


def put(page: Path, name: str, text: str) -> None:
    """Replace the text between the markers of a table."""
    begin, end = f"<!-- {name}: made by benchmarks/forecast.py -->", f"<!-- end of {name} -->"
    between = re.compile(f"(?<={re.escape(begin)}\n).*(?={re.escape(end)})", re.DOTALL)
    content, replaced = between.subn(lambda _: text + "\n", page.read_text())
    if not replaced:
        raise SystemExit(f"{page}: has no line {begin}")
    page.write_text(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "benchmarks" / "results"
    parser.add_argument("--results", type=Path, default=default, help="folder of the measurements")
    parser.add_argument("--write", action="store_true", help="write the tables into the pages")
    options = parser.parse_args()
    files = [options.results / f"{name}.json" for name in MEASURED]
    if missing := [str(file) for file in files if not file.exists()]:
        parser.exit(0, f"missing: {', '.join(missing)}; run these benchmarks with --json\n")
    measured = {file.stem: json.loads(file.read_text()) for file in files}
    for page, functions in TABLES.items():
        for function in functions:
            text = function(measured)
            print(f"{page}, {function.__name__}:\n\n{text}\n")
            if options.write:
                put(ROOT / page, function.__name__, text)


if __name__ == "__main__":
    main()
