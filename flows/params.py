"""Set a value in params.yaml and touch nothing else in it, so that DVC sees what a person's edit would be."""

from pathlib import Path

import yaml

from routerr1.errors import ConfigError
from routerr1.files import atomic_write_text


def set_values(path: Path, profile: str | None, cost_weight: float | None) -> list[str]:
    """Write those that are not None and differ; `key: value` of each that was changed.

    `cost_weight` goes where it takes effect: into the profile's file if that one sets it.
    """
    changed = [] if profile is None else set_value(path, ("profile",), profile)
    if cost_weight is not None:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        overlay = path.parent / "profiles" / f"{values['profile']}.yaml"
        over = yaml.safe_load(overlay.read_text(encoding="utf-8")) if overlay.is_file() else None
        sets_it = "cost_weight" in ((over or {}).get("reward") or {})
        changed += set_value(overlay if sets_it else path, ("reward", "cost_weight"), cost_weight)
    return changed


def set_value(path: Path, keys: tuple[str, ...], value: str | float) -> list[str]:
    """Replace one scalar in the file's text.

    Raises: ConfigError naming the key if the file does not hold it.
    """
    text = path.read_text(encoding="utf-8")
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((held for name, held in pairs if name.value == key), None)
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{path}: holds no value at {'.'.join(keys)}")
    new = yaml.safe_dump(value).removesuffix("...\n").strip()
    if yaml.safe_load(node.value) == value:
        return []
    atomic_write_text(path, text[: node.start_mark.index] + new + text[node.end_mark.index :])
    return [f"{'.'.join(keys)}: {new}"]
