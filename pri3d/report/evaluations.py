"""The evaluations of runs: `evaluation/<run>.json`, of this version and of 0.1."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pri3d.config import MODES, NAMED_WEIGHTS, TASKS, Settings, Task, renamed_settings
from pri3d.errors import Pri3DError, first_line
from pri3d.report.gather import Results
from pri3d.run.folder import RANDOM, InitialWeights, Run, read_json


class Measures(NamedTuple):
    """What the evaluation of a kind of task holds.

    figures: title of a column -> keys that lead to the figure, a share; the first is the main one.
    classes: keys that lead to the figure of each class. note: how the figures are defined. panels:
    content of the pictures, from left to right.
    """

    figures: dict[str, tuple[str, ...]]
    classes: tuple[str, ...]
    note: str
    panels: str


MEASURES: dict[str, Measures] = {
    "semseg": Measures(
        figures={
            "mIoU": ("rules", "scannet", "mean_iou"),
            "mIoU (Pri3D's rule)": ("rules", "pri3d", "mean_iou"),
            "pixel accuracy": ("rules", "scannet", "pixel_accuracy"),
            "mean accuracy": ("rules", "scannet", "mean_accuracy"),
        },
        classes=("rules", "scannet", "iou"),
        note="mIoU follows ScanNet's benchmark, at 640 x 480 pixels. Pri3D's rule works at "
        "320 x 240 pixels and counts classes that do not occur as 0; figures of the paper follow "
        "this rule.",
        panels="image, ground truth, prediction, errors (red)",
    ),
    "insseg": Measures(
        figures={
            "mask AP50": ("coco", "masks", "ap50"),
            "mask AP": ("coco", "masks", "ap"),
            "mask AP75": ("coco", "masks", "ap75"),
            "box AP50": ("coco", "boxes", "ap50"),
            "box AP": ("coco", "boxes", "ap"),
            "box AP75": ("coco", "boxes", "ap75"),
            "ScanNet's AP50": ("scannet", "ap50"),
        },
        classes=("coco", "masks", "classes"),
        note="AP follows COCO, and ScanNet's AP50 follows its benchmark.",
        panels="image, ground truth, prediction",
    ),
    "semseg3d": Measures(
        figures={
            "mIoU": ("rules", "points", "mean_iou"),
            "mean accuracy": ("rules", "points", "mean_accuracy"),
            "overall accuracy": ("rules", "points", "pixel_accuracy"),
            "mIoU on voxels": ("rules", "voxels", "mean_iou"),
        },
        classes=("rules", "points", "iou"),
        note="Figures are over all original points; each point has the prediction of its voxel. "
        "On voxels, those with points of several classes are ignored; figures of the paper are "
        "mIoU on voxels.",
        panels="input, ground truth, prediction",
    ),
    "det3d": Measures(
        figures={
            "mAP@0.25": ("boxes", "ap25", "mean"),
            "mAP@0.5": ("boxes", "ap50", "mean"),
            "recall@0.25": ("boxes", "ap25", "recall"),
            "recall@0.5": ("boxes", "ap50", "recall"),
        },
        classes=("boxes", "ap25", "classes"),
        note="AP is the area under the precision envelope, as in VoteNet's evaluation: each box "
        "counts for all classes. The mean is over the classes that occur.",
        panels="input, ground truth, prediction",
    ),
}


class Finetuned(NamedTuple):
    """The evaluation of a finetuned run. weights: its initial weights. content: the whole file."""

    name: str
    task: str
    percent: float
    seed: int
    weights: InitialWeights
    settings: Task
    content: dict[str, Any]
    path: Path

    @property
    def kind(self) -> str:
        """The kind of the task."""
        return TASKS[self.task].kind

    @property
    def figures(self) -> dict[str, float | None]:
        """Title -> figure, a share; the first is the main one. None: not defined."""
        return {title: self._value(keys) for title, keys in MEASURES[self.kind].figures.items()}

    @property
    def main_figure(self) -> float | None:
        """The first of `figures`."""
        return next(iter(self.figures.values()))

    @property
    def classes(self) -> dict[str, float | None]:
        """Class -> its figure."""
        values: dict[str, float | None] = self._value(MEASURES[self.kind].classes)
        return values

    @property
    def unit(self) -> str:
        """What the data set consists of, in the plural."""
        return next(
            (key[: -len("_of_split")] for key in self.content if key.endswith("_of_split")),
            "images",
        )

    @property
    def measured(self) -> int:
        """Number of images or clouds that were evaluated."""
        return int(self._value((self.unit,)))

    @property
    def left_out(self) -> int:
        """Number of images or clouds that could not be read."""
        return len(self._value(("left_out",)))

    @property
    def whole_split(self) -> bool:
        """Whether the whole validation split was evaluated."""
        size = int(self._value((f"{self.unit}_of_split",)))
        return self.measured + self.left_out >= size

    def _value(self, keys: tuple[str, ...]) -> Any:
        value: Any = self.content
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise Pri3DError(
                    f"{self.path}: has no {'.'.join(keys)}; remove it and evaluate the run again"
                )
            value = value[key]
        return value


class Example(NamedTuple):
    """The predictions for one pair of frames.

    Cells are (row, column) of the features of `input_shape` (height, width). anchors: in the first
    frame [n, 2]. true: their matches in the second frame. predictions: before and after
    pretraining. recall_3: before and after, over all matches of the pair.
    """

    scene: str
    frames: tuple[int, int]
    input_shape: tuple[int, int]
    anchors: list[list[int]]
    true: list[list[int]]
    predictions: dict[str, list[list[int]]]
    recall_3: dict[str, float]


class Matching(NamedTuple):
    """The evaluation of a pretraining run in held-out scans. content: the whole file."""

    name: str
    variant: str
    mode: str | None
    seed: int
    content: dict[str, Any]
    example: Example


def finetuned(results: Results) -> list[Finetuned]:
    """The evaluations of finetuned runs.

    Raises:
        Pri3DError: a file is damaged.
    """
    contents = _contents(results)
    return [_finetuned(results, path, c) for path, c in contents.items() if _is_finetuned(c)]


def matching(results: Results) -> list[Matching]:
    """The evaluations of pretraining runs.

    Raises:
        Pri3DError: a file is damaged.
    """
    contents = _contents(results)
    return [_matching(results, path, c) for path, c in contents.items() if not _is_finetuned(c)]


def is_current(results: Results, name: str, content: dict[str, Any]) -> bool:
    """Whether an evaluation is of the present weights of a run."""
    run = _run(results, name)
    return run is not None and run.weights.exists() and run.digest() == content["model"]


def pretraining_of(results: Results, weights: InitialWeights) -> Run | None:
    """The pretraining run that initial weights come from, if the results have it."""
    if weights.kind != "run":
        return None
    for run in results.runs:
        same_seed = weights.seed is None or run.settings.seed == weights.seed
        if run.variant == weights.name and same_seed:
            return run
    return None


def _contents(results: Results) -> dict[Path, dict[str, Any]]:
    return {path: read_json(path) for path in results.evaluations}


def _is_finetuned(content: dict[str, Any]) -> bool:
    return "task" in content.get("run", content)


def _run(results: Results, name: str) -> Run | None:
    return next((run for run in results.runs + results.finetuned if run.name == name), None)


def _finetuned(results: Results, path: Path, content: dict[str, Any]) -> Finetuned:
    try:
        header = content.get("run", content)
        task, name = header["task"], header.get("name", path.stem)
        kind, given = TASKS[task].kind, content["settings"]
        section: Task = getattr(Settings(), kind)
        if "run" in content:
            weights = InitialWeights.from_json(header["initial_weights"])
            settings = type(section).model_validate(given)
            percent, seed = float(header["percent"]), int(header["seed"])
        else:  # version 0.1
            settings = type(section).model_validate(renamed_settings(kind, given))
            weights = _old_weights(results, path.stem, settings.initial_weights)
            percent, seed = settings.percent, settings.seed
    except (KeyError, TypeError, ValidationError) as error:
        raise _damaged(path, error) from None
    return Finetuned(
        name=name,
        task=task,
        percent=percent,
        seed=seed,
        weights=_with_mode(results, weights),
        settings=settings,
        content=content,
        path=path,
    )


def _old_weights(results: Results, name: str, initial_weights: str) -> InitialWeights:
    """Version 0.1 did not record the initial weights in the evaluation, but in the run."""
    run = _run(results, name)
    if run is not None and run.provenance is not None:
        return run.provenance.finetuned_from
    if initial_weights == "random":
        return RANDOM
    if initial_weights in NAMED_WEIGHTS:
        return InitialWeights("imagenet", "imagenet", initial_weights)
    path = Path(initial_weights)
    return InitialWeights("file" if path.suffix else "run", path.stem, initial_weights)


def _with_mode(results: Results, weights: InitialWeights) -> InitialWeights:
    """Version 0.1 did not record the mode of a pretraining, whose run had the name of its mode."""
    if weights.kind != "run" or weights.mode is not None:
        return weights
    run = pretraining_of(results, weights)
    if run is not None:
        return weights._replace(mode=run.mode, seed=run.settings.seed)
    return weights._replace(mode=weights.name if weights.name in MODES else None)


def _matching(results: Results, path: Path, content: dict[str, Any]) -> Matching:
    try:
        if "run" in content:
            header = content["run"]
            variant = header["variant"] or header["mode"]
            name, mode, seed = header["name"], header["mode"], int(header["seed"])
        else:  # version 0.1
            run = _run(results, path.stem)
            name, mode, seed = path.stem, content.get("mode", path.stem), 0
            variant = mode
            if run is not None:
                variant, mode, seed = run.variant or run.name, run.mode, run.settings.seed
        example = _example(content["example"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    return Matching(name, variant, mode, seed, content, example)


def _example(record: dict[str, Any]) -> Example:
    if "scene" in record:
        scene, (a, b) = record["scene"], record["frames"]
    else:  # "<scene> frames <a> and <b>"
        scene, _, frames = record["pair"].rpartition(" frames ")
        a, b = frames.split(" and ")
    height, width = record["input_shape"]
    return Example(
        scene=scene,
        frames=(int(a), int(b)),
        input_shape=(height, width),
        anchors=record["anchor"],
        true=record["true"],
        predictions={when: record[when] for when in ("before", "after")},
        recall_3=record["recall_3"],
    )


def _damaged(path: Path, error: Exception) -> Pri3DError:
    reason = first_line(error)
    return Pri3DError(f"{path}: is damaged ({reason}); remove it and evaluate the run again")
