"""Results of finetuned networks: tables, low-data curves, classes and pictures."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from pri3d.config import TASKS, kind_of
from pri3d.config.tasks import DATASET_TITLES
from pri3d.report import charts, html, paper
from pri3d.report.evaluations import MEASURES, Finetuned, finetuned, is_current
from pri3d.report.gather import Results
from pri3d.report.html import Cell, Html
from pri3d.report.means import Mean, mean_over_pretrainings
from pri3d.report.names import SortKey, colors, names_in, weights_sort_key
from pri3d.selection import spread

ID = "finetuning"
TITLE = "Finetuning results"

_MAX_PICTURES = 2


class _Group(NamedTuple):
    """Runs with the same initial weights and share of the labels, which differ in their seeds."""

    weights: str
    percent: float
    rank: SortKey
    runs: list[Finetuned]

    @property
    def title(self) -> str:
        return f"{self.weights}, {self.percent:g} %"

    def figure(self, title: str) -> Mean | None:
        """The mean of one of the figures."""
        return self.mean(lambda run: run.figures[title])

    def class_figure(self, name: str) -> Mean | None:
        """The mean of the figure of a class."""
        return self.mean(lambda run: run.classes.get(name))

    def mean(self, value: Callable[[Finetuned], float | None]) -> Mean | None:
        """The mean of a value over the runs."""
        return mean_over_pretrainings((run.weights.seed, value(run)) for run in self.runs)


def render(results: Results) -> Html:
    """One part per task."""
    by_task = defaultdict(list)
    for evaluation in finetuned(results):
        by_task[evaluation.task].append(evaluation)
    if not by_task:
        return html.missing(
            "No finetuned run was evaluated; snakemake finetune_semseg_scannet (or another task) "
            "finetunes and evaluates."
        )
    parts = [
        html.paragraph(
            "Networks finetuned on labeled data from different initial weights, evaluated on the "
            "validation split. Runs with the same seed see the same labels in the same order. The "
            "spread is the standard error of the mean over runs with different seeds; with several "
            "pretraining seeds, over the means of each. Look for: pretrained weights are better "
            "than scratch, most clearly with few labels. Short runs, as in the demo, show that the "
            "workflow works, but not which initial weights are better."
        )
    ]
    color = colors(names_in(results))
    parts += [_task(results, task, by_task[task], color) for task in TASKS if task in by_task]
    return html.join(parts)


def _task(results: Results, task: str, runs: list[Finetuned], color: dict[str, str]) -> Html:
    groups = _groups(runs)
    parts = [html.heading(_title(task)), _table(results, groups, runs)]
    parts.append(html.paragraph(_notes(runs), class_="note"))
    stale = [run.name for run in runs if not is_current(results, run.name, run.content)]
    if stale:
        parts.append(
            html.warning(
                f"The weights of these runs have changed since their evaluation: "
                f"{', '.join(stale)}; evaluate them again."
            )
        )
    if len({group.percent for group in groups}) > 1:
        parts.append(_curve(task, groups, color))
    return html.join([*parts, _classes(groups), *_pictures(runs)])


def _title(task: str) -> str:
    """What a task does, and its data set."""
    summary = kind_of(task).summary
    return f"{summary[0].upper()}{summary[1:]}, {DATASET_TITLES[TASKS[task].dataset]}"


def _groups(runs: list[Finetuned]) -> list[_Group]:
    """Runs by initial weights and share of the labels, ordered by share, then by weights."""
    grouped = defaultdict(list)
    for run in runs:
        grouped[run.percent, weights_sort_key(run.weights)].append(run)
    return [
        _Group(grouped[percent, rank][0].weights.name, percent, rank, grouped[percent, rank])
        for percent, rank in sorted(grouped)
    ]


def _table(results: Results, groups: list[_Group], runs: list[Finetuned]) -> Html:
    titles = list(runs[0].figures)
    scratch = {
        (run.percent, run.seed): run.main_figure for run in runs if run.weights.kind == "random"
    }

    def gain(run: Finetuned) -> float | None:
        """The main figure over that of the run from scratch that saw the same labels."""
        baseline = scratch.get((run.percent, run.seed))
        if run.weights.kind == "random" or run.main_figure is None or baseline is None:
            return None
        return run.main_figure - baseline

    rows: list[list[Cell]] = []
    for group in groups:
        pretrainings = len({run.weights.seed for run in group.runs})
        gains = group.mean(gain)
        rows.append(
            [
                group.weights,
                html.Number(f"{group.percent:g} %"),
                len(group.runs),
                pretrainings if pretrainings > 1 else None,
                *(_percent(group.figure(title)) for title in titles),
                gains.number(factor=100, sign=True) if gains else None,
                paper.published(results, group.runs[0]),
            ]
        )
    head = ["initial weights", "labels", "runs", "pretraining seeds", *titles]
    head += [f"{titles[0]} over scratch", "paper"]
    return html.table(*html.known_columns(head, rows))


def _percent(mean: Mean | None) -> html.Number | None:
    return mean.number(factor=100) if mean else None


def _notes(runs: list[Finetuned]) -> str:
    """What the figures of a task are, and what they are measured on."""
    first = runs[0]
    left_out = max(run.left_out for run in runs)
    unit = first.unit if first.measured != 1 else first.unit.removesuffix("s")
    size = f"{first.measured:,} {unit} of the validation split"
    if "objects" in first.content:
        size += f" with {first.content['objects']:,} objects"
    if first.content.get("described_by"):
        size += f" from {first.content['described_by']}"
    sentences = [f"Figures in %, on {size}; left out: {left_out:,}.", MEASURES[first.kind].note]
    scores = sorted({run.settings.min_score for run in runs if hasattr(run.settings, "min_score")})
    if len(scores) == 1:
        sentences.append(
            f"Predictions with a score below {scores[0]:g} were dropped; figures for other "
            "thresholds are not comparable."
        )
    elif scores:
        sentences.append(
            f"Predictions with low scores were dropped, with thresholds from {scores[0]:g} to "
            f"{scores[-1]:g}: figures for different thresholds are not comparable."
        )
    return " ".join(sentences)


def _curve(task: str, groups: list[_Group], color: dict[str, str]) -> Html:
    """The main figure over the share of the labels, with standard errors."""
    title = next(iter(groups[0].runs[0].figures))
    by_weights: dict[SortKey, list[_Group]] = defaultdict(list)
    for group in groups:
        by_weights[group.rank].append(group)
    with charts.style():
        figure = charts.new_figure(6.2, 3.6)
        axes = figure.add_subplot()
        for _, curve in sorted(by_weights.items()):
            points = [(group.percent, group.mean(lambda run: run.main_figure)) for group in curve]
            known = [(percent, mean) for percent, mean in points if mean is not None]
            name = curve[0].weights
            axes.errorbar(
                [percent for percent, _ in known],
                [100 * mean.value for _, mean in known],
                [100 * (mean.error or 0) for _, mean in known],
                color=color[name],
                label=name,
                lw=1.5,
                marker="o",
                ms=3,
            )
        axes.set_xlabel("share of the labels, %")
        axes.set_ylabel(f"{title}, %")
        charts.horizontal_rules(axes)
        axes.legend(fontsize=8)
        svg = charts.svg(figure)
    caption = f"{_title(task)}: {title} over the share of the labels; bars are standard errors."
    return html.figure(html.image(svg, "svg+xml", caption), caption)


def _classes(groups: list[_Group]) -> Html:
    """The figures of each class, one column per initial weights and share of the labels."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.classes)
    rows: list[list[Cell]] = []
    for name in names:
        means = [group.class_figure(name) for group in groups]
        if any(means):
            rows.append([name, *map(_percent, means)])
    if not rows:
        return Html("")
    head = ["class", *(group.title for group in groups)]
    return html.details("By class", html.table(head, rows))


def _pictures(runs: list[Finetuned]) -> list[Html]:
    """Predictions of the best run on some images."""
    best = max(runs, key=lambda run: run.main_figure or 0)
    folder = best.path.with_name(f"{best.path.stem}_pictures")
    parts = []
    for path in spread(sorted(folder.glob("*.jpg")), _MAX_PICTURES):
        caption = f"{best.name}, {path.stem}: {MEASURES[best.kind].panels}."
        parts.append(html.figure(html.image(path.read_bytes(), "jpeg", caption), caption))
    return parts
