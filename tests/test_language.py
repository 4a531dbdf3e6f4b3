"""Plain English: no house dialect and no British spelling in texts for readers.

Looked at are the documentation, comments, docstrings and strings of the package, the workflow, the
settings and the benchmarks. A line that ends in `# stored text` is left out: the text is part of
artefacts, whose digests must not change.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config.yaml", "Snakefile")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / "workflow").rglob("*") if path.suffix in (".smk", ".yaml")),
]
OLD_NAMES = ROOT / "pri3d" / "config" / "renamed.py"  # names as version 0.1 spelled them
PYTHON = [*sorted((ROOT / "pri3d").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
PYTHON.remove(OLD_NAMES)

_NOUNS = (
    "core|cell|cloud|epoch|file|frame|GPU|image|job|kind|line|machine|micro-batch|mode|pair|"
    "process|run|scan|scene|second|stage|step|task|thread|voxel"
)
_COUNTED = (
    "bytes|cells|clouds|cores|frames|GB|GPUs|hours|images|lines|matches|MB|minutes|ms|pairs|"
    r"pixels|points|processes|rows|s|samples|scenes|scans|seconds|steps|one [\w-]+"
)
# What is wrong -> what to write in its place.
DIALECT = {
    r"told|tells": "reports, logs, prints, shows",
    r"anew": "again, from scratch",
    r"go(?:es|ing)? on(?:(?= from)|(?! a\b| one\b| the\b))": "resume, continue",
    r"so many": "at most N, the number of",
    r"(?:cannot|could not|can) be had|to be had": "is not available",
    r"of no account": "ignored",
    rf"(?:{_COUNTED}) an? (?:{_NOUNS})": "per",
    r"rates? an? (?:step|epoch)": "per",
}
BRITISH = {
    r"\w*metres?": "meters",
    r"\w*colour\w*": "color",
    r"cent(?:re|res|red|ring)": "center",
    r"neighbour\w*": "neighbor",
    r"behaviour\w*": "behavior",
    r"favour\w*": "favor",
    r"grey\w*": "gray",
    r"(?:de|re)?norm(?:alis)\w+": "normalize",
    r"(?:optim|initial|minim|maxim|penal|quant|vector|visual|summar|serial|parallel|synchron|"
    r"general|recogn|organ|real|util|voxel|special|random|regular|discret|token|poster|character|"
    r"categor|custom|emphas|memor|standard|orthonormal|final|parametr|priorit|local|factor|equal|"
    r"rasteri?|binar)is(?:e|es|ed|er|ers|ing|ation|ations)": "-ize",
    r"(?:un)?label(?:led|ling)|model(?:led|ling)|travel(?:led|ling)|cancel(?:led|ling)": "one l",
    r"analys(?:e|es|ed|ing)": "analyze",
    r"artifacts?": "artefact, the name of these files here",
    r"licences?": "license",
    r"whilst|learnt|amongst": "while, learned, among",
}
# Between two words of a phrase there may be a line break, with the mark of a comment.
_GAP = r"[\s#]+"


def _rules(words: dict[str, str], flags: re.RegexFlag) -> list[tuple[re.Pattern, str]]:
    return [
        (re.compile(rf"\b(?:{pattern})\b".replace(" ", _GAP), flags), advice)
        for pattern, advice in words.items()
    ]


RULES = _rules(DIALECT, re.NOFLAG) + _rules(BRITISH, re.IGNORECASE)


def prose(path: Path) -> str:
    """The text of a file, in which everything that is not prose is blanked."""
    text = path.read_text()
    if path.suffix == ".py":
        text = comments_and_strings(text)
    lines = text.split("\n")
    return "\n".join("" if line.rstrip().endswith("# stored text") else line for line in lines)


def comments_and_strings(source: str) -> str:
    lines = source.split("\n")
    kept = [[" "] * len(line) for line in lines]
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            (first, start), (last, stop) = token.start, token.end
            for row in range(first - 1, last):
                begin = start if row == first - 1 else 0
                end = stop if row == last - 1 else len(lines[row])
                kept[row][begin:end] = lines[row][begin:end]
    return "\n".join("".join(line) for line in kept)


def problems(text: str) -> list[tuple[int, str, str]]:
    """Line number, words and advice."""
    found = []
    for pattern, advice in RULES:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, " ".join(match[0].split()), advice))
    return sorted(found)


@pytest.mark.parametrize("path", PAGES + PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_english(path):
    name, text = path.relative_to(ROOT), prose(path)
    found = [f"{name}:{line}: {words!r} -> {advice}" for line, words, advice in problems(text)]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pairs a step, over all", ["pairs a step"]),
        ("one verb a stage", ["one verb a stage"]),
        ("matches a\n# pair", ["matches a # pair"]),
        ("it tells the user", ["tells"]),
        ("it goes on from there", ["goes on"]),
        ("in metres and colours", ["colours", "metres"]),
        ("normalised, initialisation", ["initialisation", "normalised"]),
        ("a pair and a step; pairs per step; the chosen pairs as a frame sees them", []),
        ("what goes on the left, raises, precise, promise, exercise", []),
        ("parameters, a diameter, perimeter", []),
    ],
)
def test_rules(text, words):
    assert sorted(found for _, found, _ in problems(text)) == words


def test_code_is_no_prose(tmp_path):
    (tmp_path / "module.py").write_text('colour = "colour"  # colour\n"""A\ncolour."""\n')
    assert [line for line, _, _ in problems(prose(tmp_path / "module.py"))] == [1, 1, 3]
    (tmp_path / "module.py").write_text('status = "colour"  # stored text\n')
    assert not problems(prose(tmp_path / "module.py"))
