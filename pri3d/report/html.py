"""Tables, figures and the page around them. Text is escaped unless it is `Html` already."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Html(str):
    """A piece of markup: it is not escaped again."""

    __slots__ = ()


class Number(Html):
    """A formatted number: it stands to the right."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Escape anything that is not markup already."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def tag(name: str, content: Any, **attributes: Any) -> Html:
    """`<name attributes>content</name>`; `class_` is the attribute class, "_" in names is "-"."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{words}>{text(content)}</{name}>")


def join(parts: Iterable[Any], between: str = "\n") -> Html:
    return Html(between.join(text(part) for part in parts))


def paragraph(*parts: Any, **attributes: Any) -> Html:
    return tag("p", join(parts, " "), **attributes)


def missing(sentence: Any) -> Html:
    """The sentence that stands in the place of what is not there."""
    return paragraph(sentence, class_="missing")


def section(name: str, title: str, content: Any) -> Html:
    """A part of the page; `name` is its anchor."""
    return tag("section", join([tag("h2", title), content]), id=name)


def details(summary: Any, content: Any) -> Html:
    """Something to unfold."""
    return tag("details", join([tag("summary", summary), content]))


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    foot: Sequence[Any] | None = None,
    row_classes: Sequence[str | None] | None = None,
) -> Html:
    """Numbers are grouped by thousands and stand to the right; None is a dash."""
    rows = list(rows)
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(head))]

    def line(cells, name, class_=None):
        classes = ["n" if right else None for right in numeric]
        parts = [tag(name, _cell(cell), class_=c) for cell, c in zip(cells, classes)]
        return tag("tr", join(parts, ""), class_=class_)

    classes = row_classes or [None] * len(rows)
    parts = [tag("thead", line(head, "th"))]
    parts.append(tag("tbody", join(line(row, "td", c) for row, c in zip(rows, classes))))
    if foot is not None:
        parts.append(tag("tfoot", line(foot, "td")))
    # Focusable, so that a keyboard can scroll what does not fit.
    return tag("div", tag("table", join(parts)), class_="scroll", tabindex=0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Number)


def _cell(value: Any) -> Html:
    if value is None:
        return Html("–")
    if isinstance(value, int | float):
        return Html(f"{value:,}" if isinstance(value, int) else f"{value:,.2f}")
    return text(value)


def figure(content: Any, caption: Any, class_: str | None = None) -> Html:
    """A picture and what one sees in it; class "halves" puts them side by side."""
    return tag("figure", join([content, tag("figcaption", caption)]), class_=class_)


def grid(parts: Iterable[Any], halves: bool = False) -> Html:
    """Three or (halves) two side by side where there is room, one on a phone."""
    return tag("div", join(parts), class_="grid halves" if halves else "grid")


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, kind: str, description: str) -> Html:
    """A picture inside the page; kind: "png", "jpeg" or "svg+xml"."""
    return Html(f'<img src="{data_uri(data, kind)}" alt="{escape(description)}">')


def page(title: str, sections: Iterable[Html]) -> str:
    """The whole page. Its policy forbids a browser to load anything from anywhere."""
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
.status-bad { color: var(--red); }
.status-partial, .status-bad { display: block; min-width: 14rem; font-weight: 600; }
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
