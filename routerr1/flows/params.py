"""Set values in params.yaml and leave the rest of the text alone, as a person's edit would."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from routerr1.config import load_params
from routerr1.errors import ConfigError
from routerr1.files import atomic_write_text


def set_values(path: Path, values: Mapping[str, str | float]) -> list[str]:
    """Write the values, by dotted key, that differ from the present ones.

    A value goes where it takes effect: into the file of the preset if that file sets the key.

    Returns: `key: value` of each change.
    Raises: ConfigError if neither file has a key, or if the parameters would be invalid; nothing is written.
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
    """The node of a dotted key, or None if it does not exist or is no single value."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((held for known, held in pairs if known.value == name), None)
    return node if isinstance(node, yaml.ScalarNode) else None
