"""The ledger of all scans: number of frames used, kept and dropped, by reason."""

from typing import Literal

from pri3d.report import html
from pri3d.report.gather import Ledger, Results
from pri3d.report.html import Cell, Html, tag

ID = "ledger"
TITLE = "Frame ledger"

REASONS = {
    "cut": "the file ends before or inside this frame (perhaps an interrupted download)",
    "unreachable": "a damaged size at or before this frame, so its position in the file is unknown",
    "pose_not_finite": "the sensor had lost track of its position, so there is no camera pose",
    "pose_zero": "the camera pose is all zeros, which also means that it is unknown",
    "pose_not_rigid": "the camera pose is not a rotation and translation: it scales, skews or "
    "mirrors",
    "depth_unreadable": "the depth image is damaged",
    "no_depth": "no pixel of the depth image has a valid measurement",
    "color_unreadable": "the color image is damaged",
}

Status = Literal["ok", "partial", "failed"]
_ROW_CLASSES: dict[Status, str | None] = {"ok": None, "partial": "fair", "failed": "bad"}


def parse_status(text: str) -> Status:
    """The status of a scan, from its entry in the ledger, such as "partial: 1 frame is damaged"."""
    word = text.partition(":")[0]
    if word == "ok":
        return "ok"
    return "partial" if word == "partial" else "failed"


def render(results: Results) -> Html:
    """The table of all scans, the explanation of its columns, and the sums."""
    ledger = results.ledger
    if results.pairs is None or ledger is None:
        return html.missing(
            "There is no pairs.h5, which holds the ledger; snakemake results/pairs.h5 makes it."
        )
    sampled = results.pairs.settings.get("max_pairs") is not None
    return html.join(
        [
            html.paragraph(
                "Every n-th frame of a scan is used. Each used frame is either kept, or dropped "
                "for one reason. Every dropped frame is counted."
            ),
            _table(results.scenes, ledger, sampled),
            _sums(ledger),
            _reasons(ledger.reasons),
            html.paragraph(_pairs(ledger, len(results.pairs.a) if sampled else None)),
        ]
    )


def _table(scenes: list[str], ledger: Ledger, sampled: bool) -> Html:
    head = ["scan", "frames in the scan", "used", _sign("=", "kept")]
    head += [_sign("+", reason) for reason in ledger.reasons]
    head += ["pairs tested", "pairs kept", *(["pairs sampled"] if sampled else []), "status"]
    columns = [ledger.frames_in_scan, ledger.frames_in, ledger.kept, *ledger.dropped.T]
    columns += [ledger.pairs_tested, ledger.pairs_kept]
    columns += [ledger.pairs_sampled] if sampled else []
    rows: list[list[Cell]] = []
    classes = []
    for i, (scene, text) in enumerate(zip(scenes, ledger.statuses)):
        status = parse_status(text)
        counts = [int(column[i]) for column in columns]
        rows.append([scene, *counts, tag("span", text, class_=f"status-{status}")])
        classes.append(_ROW_CLASSES[status])
    good = sum(parse_status(text) == "ok" for text in ledger.statuses)
    totals = [int(column.sum()) for column in columns]
    foot: list[Cell] = [f"all {len(rows)}", *totals, f"{good} of {len(rows)} ok"]
    return html.table(head, rows, foot, classes)


def _sign(sign: str, title: str) -> Html:
    """The title of a column, with the sign that makes a row a sum."""
    breakable = Html(html.text(title).replace("_", "_<wbr>"))
    return html.join([tag("span", sign, class_="op"), breakable], "\N{NO-BREAK SPACE}")


def _sums(ledger: Ledger) -> Html:
    """The sum over all scans as one sentence."""
    used, kept = int(ledger.frames_in.sum()), int(ledger.kept.sum())
    dropped = [int(n) for n in ledger.dropped.sum(axis=0)]
    terms = [f"{kept:,} kept"]
    terms += [f"{n:,} {reason}" for reason, n in zip(ledger.reasons, dropped)]
    correct = used == kept + sum(dropped)
    verdict = "the counts add up" if correct else "the counts do NOT add up; run pairs again"
    equation = tag("b", f"{used:,} used = {' + '.join(terms)}")
    return html.paragraph(html.join(["Frames: ", equation, f": {verdict}."], ""))


def _reasons(reasons: list[str]) -> Html:
    terms = [
        tag("dt", reason) + tag("dd", REASONS.get(reason, "no explanation is known"))
        for reason in reasons
    ]
    return tag("dl", html.join(map(Html, terms))) if terms else Html("")


def _pairs(ledger: Ledger, sampled: int | None) -> str:
    tested, kept = int(ledger.pairs_tested.sum()), int(ledger.pairs_kept.sum())
    sentence = f"All pairs of kept frames of a scan are tested: {tested:,} in total, {kept:,} kept"
    if tested:
        sentence += f" ({100 * kept / tested:.1f} %)"
    if sampled is not None:
        sentence += f"; {sampled:,} of these were sampled at random for training"
    return sentence + "."
