"""Set a few values in params.yaml, comments and order kept, so that DVC sees them as any other edit."""

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from routerr1.files import atomic_write_text


def set_values(path: Path, profile: str | None, cost_weight: float | None) -> list[str]:
    """Write those that are not None and differ; `key: value` of each that was changed.

    `cost_weight` goes where it takes effect: into the profile's file if that one sets it.
    """
    changed = [] if profile is None else _set(path, ("profile",), profile)
    if cost_weight is not None:
        name = _read(path)[1]["profile"]
        overlay = path.parent / "profiles" / f"{name}.yaml"
        values = _read(overlay)[1] if overlay.is_file() else {}
        sets_it = "cost_weight" in ((values or {}).get("reward") or {})
        target = overlay if sets_it else path
        changed += _set(target, ("reward", "cost_weight"), cost_weight)
    return changed


def _read(path: Path) -> tuple[YAML, Any]:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml, yaml.load(path.read_text(encoding="utf-8"))


def _set(path: Path, keys: tuple[str, ...], value: object) -> list[str]:
    yaml, document = _read(path)
    section = document
    for key in keys[:-1]:
        section = section[key]
    if section[keys[-1]] == value:
        return []
    section[keys[-1]] = value
    text = StringIO()
    yaml.dump(document, text)
    atomic_write_text(path, text.getvalue())
    return [f"{'.'.join(keys)}: {value}"]
