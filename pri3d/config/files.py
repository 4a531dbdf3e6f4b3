"""Settings from YAML files, and the presets of `workflow/presets`."""

from pathlib import Path
from typing import Any

from pri3d.config.keys import merged, nested
from pri3d.config.names import unknown_name
from pri3d.config.settings import Settings, parse
from pri3d.errors import Pri3DError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "config.yaml"
PRESETS = ROOT / "workflow" / "presets"


def load(path: str | Path) -> Settings:
    """Settings from a YAML file, on top of the preset that it names.

    Raises:
        Pri3DError: a file is missing or no YAML, or a setting is wrong.
    """
    return parse(with_preset(read_yaml(path)))


def preset_names() -> list[str]:
    """The names that the setting `preset` can have."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def with_preset(raw: dict[str, Any], below: dict[str, Any] | None = None) -> dict[str, Any]:
    """Settings on top of the preset that they name (`preset`), and that on top of `below`.

    The preset of `below` counts where `raw` names none.

    Raises:
        Pri3DError: there is no such preset, or presets name each other in a circle.
    """
    resolved = nested(below or {})
    layers = [nested(raw)]
    name = layers[0].get("preset") or resolved.get("preset")
    known = preset_names()
    while name is not None:
        if name not in known:
            raise Pri3DError(f"preset: {unknown_name('preset', str(name), known)}")
        if len(layers) > len(known):
            raise Pri3DError(f"{PRESETS}: the presets start from each other in a circle")
        layers.append(nested(read_yaml(PRESETS / f"{name}.yaml")))
        name = layers[-1].get("preset")
    for layer in reversed(layers):
        resolved = merged(resolved, layer)
    return resolved


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        Pri3DError: the file is missing, is no YAML, or holds something else.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            raw = yaml.safe_load(file)
    except OSError as error:
        raise Pri3DError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Pri3DError(f"{path}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict | None):
        raise Pri3DError(f"{path}: holds no settings; write one `name: value` per line")
    return raw or {}
