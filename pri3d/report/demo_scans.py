"""Frames of the demo scans beside their labels, with a legend of the label colors."""

import io

import numpy as np
from PIL import Image

from pri3d.classes import PALETTE40
from pri3d.demo import classes, write
from pri3d.demo.sheet import contact_sheet
from pri3d.report import html
from pri3d.report.gather import Results
from pri3d.report.html import Html, tag
from pri3d.selection import spread

ID = "demo"
TITLE = "Demo scans and labels"

_MAX_SCANS = 3


def render(results: Results) -> Html | None:
    """Frames over labels of some demo scans; None if the scans are not the demo's."""
    folders = [
        folder
        for folder in results.demo
        if write.file(folder.parent, folder.name, "label_images").exists()
    ]
    if not folders:
        return None
    parts = [
        html.paragraph(
            "The demo scans are synthetic rooms, rendered as a depth camera would record them. "
            "Top: color images. Bottom: the class of each pixel. Look for: the colors follow the "
            "outlines of the furniture."
        )
    ]
    shown: set[tuple[int, ...]] = set()
    for folder in spread(folders, _MAX_SCANS):
        sheet = contact_sheet(folder)
        shown |= _colors_of(sheet[len(sheet) // 2 :])
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "JPEG", quality=90, subsampling=0)
        picture = html.image(buffer.getvalue(), "jpeg", f"Frames of {folder.name} with labels")
        parts.append(html.figure(picture, f"{folder.name}: frames (top) and labels (bottom)."))
    return html.join([*parts, _legend(shown)])


def _colors_of(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def _legend(shown: set[tuple[int, ...]]) -> Html:
    """The classes whose colors are shown; kinds of one class share its color."""
    names: dict[int, list[str]] = {}
    for name, entry in classes.CLASSES.items():
        names.setdefault(entry.nyu40, []).append(name)
    items = []
    for nyu40, kinds in names.items():
        red, green, blue = PALETTE40[nyu40].tolist()
        if (red, green, blue) in shown:
            items.append(_legend_item(f"rgb({red},{green},{blue})", ", ".join(kinds)))
    if (0, 0, 0) in shown:
        items.append(_legend_item("#000", "no label"))
    return tag("ul", html.join(items), class_="legend")


def _legend_item(color: str, name: str) -> Html:
    swatch = tag("span", "", class_="swatch", style=f"background:{color}")
    return tag("li", html.join([swatch, name], ""))
