"""Frames of demo scans beside their labels, with the legend of the labels' colours."""

import io

import numpy as np
from PIL import Image

from pri3d.classes import PALETTE40
from pri3d.demo import classes, write
from pri3d.demo.sheet import contact_sheet
from pri3d.report import html
from pri3d.report.gather import Made, spread
from pri3d.report.html import Html, tag

_SCANS = 3


def rooms(made: Made) -> Html:
    complete = [
        folder
        for folder in made.demo
        if write.file(folder.parent, folder.name, "label_images").exists()
    ]
    if not complete:
        return html.missing("These are no demo scans, so there are no labels to show.")
    parts = [
        html.paragraph(
            "Procedural rooms, drawn as a depth camera would record them. Above what the camera "
            "sees, below the class of each pixel. Good: the colours follow the outlines of the "
            "furniture, and the pictures look like rooms that a person walks through."
        )
    ]
    seen: set[tuple[int, ...]] = set()
    for folder in spread(complete, _SCANS):
        sheet = contact_sheet(folder)
        seen |= _colors_of(sheet[len(sheet) // 2 :])
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "JPEG", quality=90, subsampling=0)
        picture = html.image(buffer.getvalue(), "jpeg", f"Frames of {folder.name} with labels")
        parts.append(html.figure(picture, f"{folder.name}: frames over their labels."))
    parts.append(_legend(seen))
    return html.join(parts)


def _colors_of(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def _legend(seen: set[tuple[int, ...]]) -> Html:
    """Colours of the classes that are to be seen. Kinds of a class share its colour."""
    names: dict[int, list[str]] = {}
    for name, entry in classes.CLASSES.items():
        names.setdefault(entry.nyu40, []).append(name)
    items = []
    for nyu40, kinds in names.items():
        color = PALETTE40[nyu40].tolist()
        if tuple(color) in seen:
            swatch = tag(
                "span", "", class_="swatch", style="background:rgb({},{},{})".format(*color)
            )
            items.append(tag("li", html.join([swatch, ", ".join(kinds)], "")))
    if (0, 0, 0) in seen:
        swatch = tag("span", "", class_="swatch", style="background:#000")
        items.append(tag("li", html.join([swatch, "no label"], "")))
    return tag("ul", html.join(items), class_="legend")
