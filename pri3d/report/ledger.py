"""The headline, and the ledger of every scan: what came in, what is kept, what is not and why."""

import json
from collections import Counter
from pathlib import Path

import h5py

from pri3d.report import html
from pri3d.report.gather import Made, read
from pri3d.report.html import Html, tag

REASONS = {
    "cut": "the file ends before this frame or inside it (a download that broke off?)",
    "unreachable": "damaged sizes at or before this frame, so that it cannot be found in the file",
    "pose_not_finite": "the sensor had lost track of where it is, so the scan holds no camera pose",
    "pose_zero": "the camera pose is all zeros, another way of writing that it is unknown",
    "pose_not_rigid": "the camera pose is more than turn and shift: it scales, skews or mirrors",
    "depth_unreadable": "the depth image is damaged",
    "no_depth": "not one pixel of the depth image has a valid measurement",
    "color_unreadable": "the colour image is damaged",
}


def headline(made: Made) -> Html:
    """What was made, by which settings, what to worry about, and where to find what."""
    parts = [tag("h1", "Pri3D: what was made")]
    parts.append(html.paragraph(_settings_line(made), class_="lead"))
    parts.append(_counts(made))
    parts += [html.paragraph(problem, class_="warning") for problem in _problems(made)]
    places = {
        "ledger": "Ledger",
        "overlap": "Overlap",
        "pairs": "Example pairs",
        "chunk": "A chunk",
        "rooms": "Demo scans",
        "training": "Pretraining",
        "recall": "Matches in unseen scans",
        "costs": "Time and memory",
        "settings": "Settings",
        "digests": "Digests",
    }
    links = [tag("a", title, href=f"#{name}") for name, title in places.items()]
    parts.append(tag("nav", html.join(links), aria_label="On this page"))
    return tag("header", html.join(parts))


def _settings_line(made: Made) -> str:
    words = []
    every = {setting["every"] for setting in _settings_of(made.clouds) if "every" in setting}
    if every == {1}:
        words.append("every frame is taken")
    elif every:
        words.append(f"one frame in {' or '.join(map(str, sorted(every)))} is taken")
    if made.pairs:
        if made.ledger["rule"] == "official":
            words.append("frames compared by the published script's rule (clouds thinned to 5 cm)")
        else:
            radius = f"{100 * made.ledger['radius_m']:g}\N{NO-BREAK SPACE}cm"
            words.append(
                f"frames compared by the paper's rule: points closer than {radius}, over all depth "
                "pixels, both ways"
            )
        words.append(f"a pair is kept from an overlap of {made.pairs.settings['min_overlap']:g} on")
    line = "; ".join(words)
    return f"{line[:1].upper()}{line[1:]}." if line else "No settings are recorded."


def _settings_of(files: dict[str, Path]) -> list[dict]:
    def settings(path: Path) -> dict:
        with h5py.File(path) as file:
            return json.loads(file.attrs["settings"])

    return [read(path, settings) for path in files.values()]


def _counts(made: Made) -> Html:
    frames = int(made.ledger["kept"].sum()) if made.pairs else None
    chunks = sum(read(path, _frames_in) for path in made.chunks.values())
    counts = [
        ("scans", len(made.scenes)),
        ("frames kept", frames),
        ("pairs of frames", len(made.pairs.a) if made.pairs else None),
        ("chunks of surface", chunks),
        ("pretraining runs" if len(made.runs) != 1 else "pretraining run", len(made.runs)),
    ]
    items = [
        tag("li", html.join([tag("b", "–" if n is None else f"{n:,}"), name], " "))
        for name, n in counts
    ]
    return tag("ul", html.join(items), class_="counts")


def _frames_in(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file["frames/index"])


def _problems(made: Made) -> list[str]:
    """What a reader must know before believing the rest."""
    problems = []
    if made.pairs:
        statuses = [status.decode() for status in made.ledger["status"]]
        worst = Counter(_kind(status) for status in statuses)
        for kind, what in (
            ("bad", "Missing or unreadable"),
            ("partial", "Damaged in part, or without a usable frame"),
        ):
            if worst[kind]:
                problems.append(
                    f"{what}: {worst[kind]} of {len(statuses)} scans. The ledger says why."
                )
        changed = [
            scene
            for scene, path in made.overlap.items()
            if made.pairs.inputs.get(scene) != read(path, _digest)
        ]
        if changed:
            problems.append(
                f"pairs.h5 is older than the overlap of {', '.join(changed[:8])}"
                f"{' and others' if len(changed) > 8 else ''}: run pairs again."
            )
    if made.strangers:
        some = ", ".join(made.strangers[:6]) + (" ..." if len(made.strangers) > 6 else "")
        problems.append(f"Files of scans that are not in pairs.h5, and are not shown here: {some}.")
    return problems


def _digest(path: Path) -> str:
    with h5py.File(path) as file:
        return str(file.attrs["digest"])


def _kind(status: str) -> str:
    """ "ok", "partial" or "bad"."""
    word = status.partition(":")[0]
    return word if word in ("ok", "partial") else "bad"


def ledger(made: Made) -> Html:
    """The table, what its columns mean, and the sums in words."""
    if not made.pairs:
        return html.missing(
            "There is no pairs.h5, which holds the ledger; snakemake results/pairs.h5 makes it."
        )
    book = made.ledger
    reasons = [reason.decode() for reason in book["reason"]]
    statuses = [status.decode() for status in book["status"]]
    drawn = made.pairs.settings.get("max_pairs") is not None
    head = ["scan", "frames in the scan", "taken", _sign("=", "kept")]
    head += [_sign("+", reason) for reason in reasons]
    head += ["pairs tested", "pairs kept"] + (["pairs drawn"] if drawn else []) + ["status"]
    columns = [book["frames_in_scan"], book["frames_in"], book["kept"], *book["dropped"].T]
    columns += [book["pairs_tested"], book["pairs_kept"]] + ([book["pairs_drawn"]] * drawn)
    rows, classes = [], []
    for i, (scene, status) in enumerate(zip(made.scenes, statuses)):
        kind = _kind(status)
        rows.append([scene, *(int(column[i]) for column in columns)])
        rows[-1].append(tag("span", status, class_=f"status-{kind}"))
        classes.append({"ok": None, "partial": "fair", "bad": "bad"}[kind])
    totals = [int(column.sum()) for column in columns]
    good = sum(kind == "ok" for kind in map(_kind, statuses))
    foot = [f"all {len(rows)}", *totals, f"{good} of {len(rows)} ok"]
    parts = [
        html.paragraph(
            "Of the frames in a scan some are taken (every n-th). Each one taken is either kept or "
            "dropped for one reason, and nothing is dropped without being counted."
        ),
        html.table(head, rows, foot, classes),
        html.paragraph(_sum_in_words(totals[1], totals[2], dict(zip(reasons, totals[3:])))),
    ]
    if reasons:
        terms = [
            tag("dt", reason) + tag("dd", REASONS.get(reason, "no explanation is known"))
            for reason in reasons
        ]
        parts.append(tag("dl", html.join(map(Html, terms))))
    tested, kept = int(book["pairs_tested"].sum()), int(book["pairs_kept"].sum())
    pairs = f"Any two kept frames of a scan are a tested pair: {tested:,} in all, {kept:,} kept"
    if tested:
        pairs += f" ({100 * kept / tested:.1f} %)"
    if drawn:
        pairs += f"; {len(made.pairs.a):,} of these were drawn at random for training"
    parts.append(html.paragraph(pairs + "."))
    return html.join(parts)


def _sign(sign: str, title: str) -> Html:
    """A column's title with the sign that makes a row a sum."""
    foldable = Html(html.text(title).replace("_", "_<wbr>"))
    return html.join([tag("span", sign, class_="op"), foldable], "\N{NO-BREAK SPACE}")


def _sum_in_words(taken: int, kept: int, dropped: dict[str, int]) -> Html:
    parts = [f"{kept:,} kept", *(f"{n:,} {reason}" for reason, n in dropped.items())]
    adds_up = taken == kept + sum(dropped.values())
    verdict = "the books balance" if adds_up else "this does NOT add up; run pairs again"
    return html.join(
        ["Frames: ", tag("b", f"{taken:,} taken = {' + '.join(parts)}"), f": {verdict}."], ""
    )
