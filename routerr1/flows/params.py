"""Set values in params.yaml and touch nothing else in it, so that DVC sees what a person's edit would be."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from routerr1.config import load_params
from routerr1.errors import ConfigError
from routerr1.files import atomic_write_text


def set_values(path: Path, values: Mapping[str, str | float]) -> list[str]:
    """Write each value, by dotted key, that differs from what is there; `key: value` of those that did.

    One goes where it takes effect: into the preset's file if that one sets it.

    Raises: ConfigError if a key is in neither file, or the parameters could not be read with these values;
        nothing is written then.
    """
    preset = values["preset"] if "preset" in values else load_params(path).preset
    overlay = path.parent / "presets" / f"{preset}.yaml"
    texts = {file: file.read_text("utf-8") for file in (overlay, path) if file.is_file()}
    edited: dict[Path, str] = {}
    changed = []
    for key, value in values.items():
        found = [(file, node) for file in texts if (node := _scalar(texts[file], key)) is not None]
        if not found:
            raise ConfigError(f"{path}: holds no value at {key}")
        file, node = found[0]
        if yaml.safe_load(node.value) == value:
            continue
        new = yaml.safe_dump(value).removesuffix("...\n").strip()
        before, after = node.start_mark.index, node.end_mark.index
        texts[file] = edited[file] = texts[file][:before] + new + texts[file][after:]
        changed.append(f"{key}: {new}")
    load_params(path, edited)
    for file, text in edited.items():
        atomic_write_text(file, text)
    return changed


def _scalar(text: str, key: str) -> yaml.ScalarNode | None:
    """The node of a dotted key, if it is there and holds one value."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((held for known, held in pairs if known.value == name), None)
    return node if isinstance(node, yaml.ScalarNode) else None
