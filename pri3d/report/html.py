"""HTML elements, tables, figures and the page around them.

Text is escaped unless it is `Html` already.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


class Number(Html):
    """A formatted number, which a table aligns to the right."""

    __slots__ = ()


Cell: TypeAlias = str | int | float | None  # Html and Number are str


def text(value: object) -> Html:
    """Escape anything that is not markup."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def tag(name: str, content: object, **attributes: object) -> Html:
    """`<name attributes>content</name>`.

    Args:
        attributes: "_" in a name becomes "-"; `class_` is the attribute class; None leaves one out.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{words}>{text(content)}</{name}>")


def join(parts: Iterable[object], between: str = "\n") -> Html:
    """Markup of all parts, in order."""
    return Html(between.join(text(part) for part in parts))


def paragraph(*parts: object, class_: str | None = None) -> Html:
    """A `<p>` element."""
    return tag("p", join(parts, " "), class_=class_)


def heading(title: object) -> Html:
    """An `<h3>` element, below the title of its section."""
    return tag("h3", title)


def missing(sentence: object) -> Html:
    """A sentence in place of content that is missing."""
    return paragraph(sentence, class_="missing")


def warning(sentence: object) -> Html:
    """A highlighted sentence that a reader must not overlook."""
    return paragraph(sentence, class_="warning")


def section(anchor: str, title: str, content: object) -> Html:
    """A `<section>` element with its title; `anchor` is its id."""
    return tag("section", join([tag("h2", title), content]), id=anchor)


def navigation(titles: dict[str, str]) -> Html:
    """A `<nav>` element. titles: anchor of a section -> title of its link."""
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in titles.items()]
    return tag("nav", join(links), aria_label="On this page")


def details(summary: object, content: object) -> Html:
    """A `<details>` element."""
    return tag("details", join([tag("summary", summary), content]))


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[Cell]],
    foot: Sequence[Cell] | None = None,
    row_classes: Sequence[str | None] | None = None,
) -> Html:
    """A table that scrolls if it is too large.

    Numbers get thousands separators and are aligned to the right; None is shown as a dash.
    """
    rows = list(rows)
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(head))]

    def line(cells: Sequence[object], name: str, class_: str | None = None) -> Html:
        classes = ["n" if right else None for right in numeric]
        parts = [tag(name, _cell(cell), class_=c) for cell, c in zip(cells, classes)]
        return tag("tr", join(parts, ""), class_=class_)

    classes = row_classes or [None] * len(rows)
    parts = [tag("thead", line(head, "th"))]
    parts.append(tag("tbody", join(line(row, "td", c) for row, c in zip(rows, classes))))
    if foot is not None:
        parts.append(tag("tfoot", line(foot, "td")))
    # Focusable, so that it can be scrolled with the keyboard.
    return tag("div", tag("table", join(parts)), class_="scroll", tabindex=0)


def known_columns(head: list[str], rows: list[list[Cell]]) -> tuple[list[str], list[list[Cell]]]:
    """A table without the columns that hold None in every row."""
    known = [i for i in range(len(head)) if any(row[i] is not None for row in rows)]
    return [head[i] for i in known], [[row[i] for i in known] for row in rows]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Number)


def _cell(value: object) -> Html:
    if value is None:
        return Html("–")
    if isinstance(value, int | float):
        return Html(f"{value:,}" if isinstance(value, int) else f"{value:,.2f}")
    return text(value)


def percent(share: float) -> Number:
    """A share as a percentage."""
    return Number(f"{100 * share:.2f} %")


def figure(content: object, caption: object, class_: str | None = None) -> Html:
    """A `<figure>` element; the class "halves" puts picture and caption side by side."""
    return tag("figure", join([content, tag("figcaption", caption)]), class_=class_)


def grid(parts: Iterable[object], halves: bool = False) -> Html:
    """Parts in three columns, or in two (halves); in one on a narrow screen."""
    return tag("div", join(parts), class_="grid halves" if halves else "grid")


def data_uri(data: bytes, kind: str) -> str:
    """An image as a `data:` URI; kind: "png", "jpeg" or "svg+xml"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, kind: str, description: str) -> Html:
    """An `<img>` element that contains its data; kind: "png", "jpeg" or "svg+xml"."""
    return Html(f'<img src="{data_uri(data, kind)}" alt="{escape(description)}">')


def page(title: str, sections: Iterable[Html]) -> str:
    """The whole document. Its policy forbids browsers to load anything from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{join(sections)}\n</body>\n</html>\n"
    )


STYLE = """
:root { --ink: #1c2328; --soft: #56626b; --line: #dde2e6; --tint: #f5f7f8; --blue: #0063a0;
  --red: #a3231a; --red-tint: #fdeeec; --amber: #7a5200; --amber-tint: #fff6e0; --green: #00664b; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1000px; padding: 1.5rem 1.25rem 5rem; color: var(--ink);
  background: #fff; font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0.5rem 0 0.4rem; letter-spacing: -0.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 0.6rem; }
h3 { font-size: 1.08rem; margin: 2rem 0 0.4rem; }
section { margin-top: 3.2rem; padding-top: 1.6rem; border-top: 1px solid var(--line); }
p { margin: 0.5rem 0 0.9rem; max-width: 46rem; }
a { color: var(--blue); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin-top: 1.2rem; font-size: 0.95rem; }
.lead { font-size: 1.08rem; }
.missing, figcaption, .note { color: var(--soft); }
.missing { border-left: 3px solid var(--line); padding-left: 0.8rem; }
.warning { background: var(--amber-tint); border-left: 4px solid #e0a100; padding: 0.6rem 0.9rem;
  max-width: none; }
.counts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.7rem;
  margin: 1.2rem 0; padding: 0; list-style: none; }
.counts li { background: var(--tint); border-radius: 6px; padding: 0.7rem 0.9rem 0.6rem;
  font-size: 0.9rem; color: var(--soft); line-height: 1.35; }
.counts b { display: block; font-size: 1.6rem; color: var(--ink); font-weight: 600; }
.scroll { overflow: auto; max-height: 36rem; margin: 0.8rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; min-width: 60%;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { position: sticky; top: 0; background: #fff; vertical-align: bottom; font-weight: 600;
  border-bottom: 2px solid #b9c2c9; }
.n { text-align: right; } td.n { white-space: nowrap; }
tfoot td { font-weight: 600; border-top: 2px solid #b9c2c9; border-bottom: 0; }
tr.bad td { background: var(--red-tint); }
tr.fair td { background: var(--amber-tint); }
.status-ok { color: var(--green); } .status-partial { color: var(--amber); }
.status-failed { color: var(--red); }
.status-partial, .status-failed { display: block; min-width: 14rem; font-weight: 600; }
.op { color: var(--soft); font-weight: 400; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; margin: 0.8rem 0;
  font-size: 0.92rem; max-width: 52rem; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
figure { margin: 1.2rem 0 1.6rem; }
figcaption { font-size: 0.92rem; line-height: 1.5; margin-top: 0.5rem; max-width: 46rem; }
img, svg { max-width: 100%; height: auto; display: block; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  gap: 0.6rem 1.4rem; align-items: start; }
.halves { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure.halves { display: grid; gap: 0.6rem 1.6rem; align-items: center; }
.grid img { width: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; list-style: none; padding: 0;
  font-size: 0.92rem; }
.swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px; margin-right: 0.45em;
  vertical-align: -0.12em; border: 1px solid #0002; }
.bar { display: block; height: 0.75em; margin-top: 0.3em; background: #56a0d3; border-radius: 2px;
  min-width: 1px; }
code { font: 0.86em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: break-word; }
.digest { overflow-wrap: anywhere; }
details { margin: 0.8rem 0; } summary { cursor: pointer; color: var(--blue); }
@media (max-width: 560px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; }
  h1 { font-size: 1.55rem; } th, td { padding: 0.3rem 0.5rem; } }
@media print { .scroll { max-height: none; } }
"""
