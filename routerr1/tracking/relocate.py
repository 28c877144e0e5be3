"""Artifact paths of a local store after its folder was moved or copied.

MLflow keeps absolute paths in its SQLite file and offers no call that changes them. Without this module
a copied project would write into the original, and a moved one into a folder that is no longer used.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from routerr1.errors import RegistryError

ARTIFACTS = "mlruns"  # the folder beside the database
# Every column of MLflow 3.17 that holds the path of an artifact.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)

_log = logging.getLogger(__name__)


def relocate(database: Path) -> None:
    """Point the artifact paths of `database` to the folder beside it, if the artifacts are there.

    An experiment whose artifacts are not beside the database keeps its folder: a person may have chosen it.

    Raises: RegistryError naming both folders if the artifacts are in neither, or if the folder belongs to
        the database that this one was copied from.
    """
    with closing(sqlite3.connect(database, timeout=60)) as store:
        for (location,) in _locations(store):
            old = _folder(location)
            new = database.parent / ARTIFACTS / old.name
            if not old.is_absolute() or old == new:
                continue
            if new.is_dir():
                _rewrite(
                    store, location, new.as_uri() if location.startswith("file:") else str(new)
                )
                _log.warning("%s: artifacts are now read from %s instead of %s", database, new, old)
            elif not old.is_dir() or (old.parents[1] / database.name).is_file():
                raise RegistryError(
                    f"{database}: expects its artifacts in {old}; move or copy that folder to {new}"
                )


def _locations(store: sqlite3.Connection) -> list[tuple[str]]:
    """Artifact folders of the experiments that hold a run or a trace."""
    return store.execute(
        "SELECT artifact_location FROM experiments WHERE experiment_id IN"
        " (SELECT experiment_id FROM runs UNION SELECT experiment_id FROM trace_info)"
    ).fetchall()


def _folder(location: str) -> Path:
    """A location is a path, or an address in which blanks and other letters are written with `%`.

    >>> str(_folder("file:///a%20b/%23")), str(_folder("/a%20b/#"))
    ('/a b/#', '/a%20b/#')
    """
    return Path(url2pathname(urlsplit(location).path) if location.startswith("file:") else location)


def _rewrite(store: sqlite3.Connection, old: str, new: str) -> None:
    """Replace a folder in every path at or below it, in one transaction."""
    with store:
        for table, column in _COLUMNS:
            store.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)"
                f" WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                {"old": old, "new": new},
            )
