"""The folder of a run: what a training leaves in `results/runs/<name>/`.

    model.safetensors   final weights
    settings.json       kind, mode or task, and every setting; from the start
    provenance.json     inputs, initial weights, code and versions, back to the scans; at the end
    metrics.jsonl       one line per `log_every` steps; also as TensorBoard events
    checkpoints/        while the run is not finished; pretraining keeps the last ones

Only this module reads and writes `settings.json` and `provenance.json`.
"""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from pri3d import config, store
from pri3d.config import MODES, TASKS, Pretrain, Task, kind_of
from pri3d.config.settings import section_class
from pri3d.errors import Pri3DError, first_line

WEIGHTS = "model.safetensors"
SETTINGS = "settings.json"
PROVENANCE = "provenance.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
SCHEMA = 2  # of settings.json and provenance.json; 1 is version 0.1

# Network of a pretraining -> the setting of its initial weights.
WEIGHTS_SETTINGS = {
    "backbone": "initial_weights_2d",
    "backbone3d": "initial_weights_3d",
    "teacher": "teacher_weights",
}

RunKind = Literal["pretrain", "finetune"]


class InitialWeights(NamedTuple):
    """Where the initial weights of one network come from.

    kind: random; imagenet (a library's weights); file; or run (a pretraining of ours). name: short
    name for tables: scratch, imagenet, the variant of the run, or a name given to the weights.
    description: one sentence for people. file: the file's name; sha256: of its content; None
    without a file. loaded: parts of the network that the file filled, such as "backbone.encoder";
    the others are random. mode, seed: of the run.
    """

    kind: Literal["random", "imagenet", "file", "run"]
    name: str
    description: str
    file: str | None = None
    sha256: str | None = None
    loaded: tuple[str, ...] = ()
    mode: str | None = None
    seed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return self._asdict() | {"loaded": list(self.loaded)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "InitialWeights":
        """What `as_json` gave.

        Raises:
            KeyError, TypeError: fields are missing or unknown.
        """
        return cls(**fields | {"loaded": tuple(fields["loaded"])})


RANDOM = InitialWeights("random", "scratch", "random")


class Provenance(NamedTuple):
    """What a finished run was made from.

    inputs: `pairs`: {"digest", "inputs"}; `clouds` and `chunks`: scene -> the same; `dataset`, of
    finetuning: name of the data set -> the same, and its `path` as it was given. initial_weights:
    network (backbone, backbone3d, teacher) -> where its weights come from. code: digest of the
    code. versions: of pri3d and torch. engine: library of the sparse convolutions, None without
    them. left_out: number of samples of the data that could not be used.
    """

    inputs: dict[str, Any]
    initial_weights: dict[str, InitialWeights]
    code: str | None
    versions: dict[str, str]
    engine: str | None
    left_out: int = 0

    @property
    def finetuned_from(self) -> InitialWeights:
        """The initial weights of a finetuning run, which has one network."""
        return next(iter(self.initial_weights.values()), RANDOM)


class Run(NamedTuple):
    """A run, read from its folder.

    mode: of a pretraining. task: of a finetuning. variant: of a pretraining, its name in `variants`
    of the settings, or its mode. provenance: None while the run is not finished.
    """

    folder: Path
    kind: RunKind
    mode: str | None
    task: str | None
    variant: str | None
    settings: Pretrain | Task
    provenance: Provenance | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def pretrain(self) -> Pretrain:
        """The settings of a pretraining run."""
        if not isinstance(self.settings, Pretrain):
            raise Pri3DError(f"{self.folder}: is a finetuning run; give a pretraining run")
        return self.settings

    @property
    def finetune(self) -> Task:
        """The settings of a finetuning run."""
        if isinstance(self.settings, Pretrain):
            raise Pri3DError(f"{self.folder}: is a pretraining run; give a finetuning run")
        return self.settings

    def weights_setting(self, network: str) -> str:
        """The setting of the initial weights of one of its networks."""
        name = WEIGHTS_SETTINGS[network] if self.kind == "pretrain" else "initial_weights"
        value: str = getattr(self.settings, name)
        return value

    def digest(self) -> str:
        """SHA-256 of the weights file."""
        return store.file_digest(self.weights)


def write_settings(
    folder: Path, kind: RunKind, name: str, settings: Pretrain | Task, variant: str | None = None
) -> None:
    """Write `settings.json` of a run that starts or resumes.

    Args:
        folder: of the run; it is made. The provenance of a run that was finished before is removed.
        kind: of the run.
        name: its mode or task.
        settings: of `pretrain` or of the task.
        variant: of a pretraining; default: the mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROVENANCE).unlink(missing_ok=True)
    record: dict[str, Any] = {"schema": SCHEMA, "kind": kind}
    if kind == "pretrain":
        record |= {"mode": name, "variant": variant or name}
    else:
        record["task"] = name
    write_json(folder / SETTINGS, record | {"settings": settings.model_dump()})


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `provenance.json` of a run that is finished."""
    weights = {network: each.as_json() for network, each in provenance.initial_weights.items()}
    content = {"schema": SCHEMA, **provenance._asdict(), "initial_weights": weights}
    write_json(folder / PROVENANCE, content)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run that has written its settings."""
    return (folder / SETTINGS).is_file()


def read_run(folder: str | Path) -> Run:
    """The run in a folder, of this version or of 0.1.

    Raises:
        Pri3DError: the folder holds no run, or its files are damaged.
    """
    folder = Path(folder)
    record = read_json(folder / SETTINGS)
    try:
        kind, name, variant, given = _header(record)
        settings = settings_class(kind, name).model_validate(given)
    except (KeyError, TypeError, ValidationError) as error:
        raise Pri3DError(
            f"{folder / SETTINGS}: names no mode or task with its settings "
            f"({first_line(error)}); give a folder that `pri3d pretrain` or `pri3d finetune` wrote"
        ) from None
    return Run(
        folder=folder,
        kind=kind,
        mode=name if kind == "pretrain" else None,
        task=name if kind == "finetune" else None,
        variant=variant,
        settings=settings,
        provenance=_read_provenance(folder, kind),
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, without a last one that is not complete (yet).

    Raises:
        Pri3DError: the file cannot be read, or a line is no JSON object.
    """
    path = folder / METRICS
    complete, _, _ = _read_text(path).rpartition("\n")
    lines = []
    for number, text in enumerate(complete.splitlines(), 1):
        lines.append(_json_object(path, text, f"line {number}"))
    return lines


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        Pri3DError: the file cannot be read, or holds something else.
    """
    return _json_object(path, _read_text(path), "the file")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    with store.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _header(record: dict[str, Any]) -> tuple[RunKind, str, str | None, dict[str, Any]]:
    """Kind, mode or task, variant and settings of `settings.json`."""
    if "settings" in record:
        if record["kind"] == "pretrain":
            return "pretrain", record["mode"], record["variant"], record["settings"]
        return "finetune", record["task"], None, record["settings"]
    old = dict(record)  # version 0.1: settings beside the mode or task, under their old names
    if "task" in old:
        task = old.pop("task")
        return "finetune", task, None, config.renamed_settings(TASKS[task].kind, old)
    mode = old.pop("mode")
    return "pretrain", mode, mode, config.renamed_settings("pretrain", old)


def settings_class(kind: RunKind, name: str) -> type[Pretrain] | type[Task]:
    """The class of the settings of a mode or a task.

    Raises:
        KeyError: there is no such mode or task.
    """
    if kind == "pretrain":
        MODES[name]
        return Pretrain
    section = section_class(TASKS[name].kind)
    assert issubclass(section, Task)
    return section


def network_of_task(task: str) -> str:
    """The network whose initial weights a task loads, as `Provenance` names it."""
    return "backbone" if kind_of(task).network == "network2d" else "backbone3d"


def _read_provenance(folder: Path, kind: RunKind) -> Provenance | None:
    path = folder / PROVENANCE
    if not path.exists():
        return None  # not finished
    record = read_json(path)
    try:
        if "schema" not in record:
            return _old_provenance(record, kind)
        weights = {
            network: InitialWeights.from_json(fields)
            for network, fields in record["initial_weights"].items()
        }
        fields = {name: record[name] for name in Provenance._fields if name in record}
        return Provenance(**fields | {"initial_weights": weights})
    except (KeyError, TypeError, AttributeError) as error:
        raise Pri3DError(
            f"{path}: is damaged ({first_line(error)}); remove {folder} and run the training again"
        ) from None


def _old_provenance(record: dict[str, Any], kind: RunKind) -> Provenance:
    """Version 0.1 recorded initial weights as sentences."""
    if kind == "finetune":
        before = record["made_from"]
        first = _old_weights(record["start"], before["start"])
        if first.kind == "file":
            given = Path(before["settings"]["init"])  # a run's folder, or a file
            first = first._replace(kind="file" if given.suffix else "run", name=given.stem)
        weights = {network_of_task(before["task"]): first}
        labels = {"digest": before["frames"], "inputs": {}}
        inputs: dict[str, Any] = {"dataset": {TASKS[before["task"]].dataset: labels}}
        code = before["code"]
    else:
        parts = {"init2d": "backbone", "init3d": "backbone3d", "teacher_init": "teacher"}
        weights = {parts[name]: _old_weights(text) for name, text in record["starts"].items()}
        inputs = {name: record[name] for name in ("pairs", "clouds", "chunks") if name in record}
        code = None
    return Provenance(
        inputs=inputs,
        initial_weights=weights,
        code=code,
        versions=record["versions"],
        engine=record.get("engine"),
        left_out=record.get("left_out", 0),
    )


def _old_weights(sentence: str, sha256: str | None = None) -> InitialWeights:
    file = sentence.partition(" ")[0].rstrip(",")
    if sentence.startswith("random"):
        return InitialWeights("random", "scratch", sentence)
    if sentence.startswith("ImageNet"):
        return InitialWeights("imagenet", "imagenet", sentence)
    return InitialWeights("file", Path(file).stem, sentence, file, sha256)


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise Pri3DError(f"{path}: no such file; give the folder of a finished run") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Pri3DError(f"{path}: cannot be read ({error}); run the training again") from None


def _json_object(path: Path, text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Pri3DError(f"{path}: {where} is no JSON object; remove it and run the training again")
    return value
