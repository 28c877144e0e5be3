"""Data sets as MLflow inputs: DVC's digest, contents, and a source that fetches them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import get_registered_sources, register_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import Schema
from mlflow.types.schema import Array, ColSpec, DataType

from routerr1.data import card
from routerr1.data.splits import split_path
from routerr1.errors import DataError
from routerr1.types import SPLITS

_MAX_DIGEST = 36  # what MLflow stores: an md5 and DVC's ".dir"


class DvcSource(DatasetSource):
    """A path that DVC keeps, at a git commit of a repository.

    Args:
        commit: the version of dvc.lock that names the digest; None for the working tree.
        repo: folder or address of the repository.
    """

    def __init__(self, path: str, digest: str, commit: str | None = None, repo: str = ".") -> None:
        self.path = path
        self.digest = digest
        self.commit = commit
        self.repo = repo

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    @staticmethod
    def _can_resolve(_raw_source: Any) -> bool:
        return False  # never guessed from a plain string

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        raise DataError(f"{raw_source}: name a DVC path by DvcSource, not by a string")

    def load(self, dst_path: str | None = None) -> str:
        """Fetch this version from the repository's cache or remote; returns its folder.

        Raises: DataError if DVC cannot find it.
        """
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        out = dst_path or Path(self.path).name
        try:
            Repo.get(self.repo, self.path, out=out, rev=self.commit)
        except (DvcException, OSError) as error:
            raise DataError(
                f"{self.path} at {self.commit or 'the working tree'}: {error}"
            ) from None
        return out

    def to_dict(self) -> dict[str, Any]:
        """What MLflow stores; `from_dict` takes it back."""
        return {"path": self.path, "digest": self.digest, "commit": self.commit, "repo": self.repo}

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**source_dict)


class _DataSet(MetaDataset):
    def __init__(self, source: DvcSource, name: str, profile: Mapping[str, Any] | None) -> None:
        schema = _schema() if profile is not None else None
        super().__init__(source, name=name, digest=source.digest[:_MAX_DIGEST], schema=schema)
        self._profile = profile

    @property
    def profile(self) -> Mapping[str, Any] | None:
        """Rows, hops and longest question by split."""
        return self._profile

    def to_dict(self) -> dict[str, str]:
        """MLflow's fields; it leaves the profile to subclasses."""
        fields: dict[str, str] = super().to_dict()
        if self._profile is not None:
            fields["profile"] = json.dumps(self._profile, sort_keys=True)
        return fields


def inputs(path: Path, context: str) -> list[DatasetInput]:
    """What to log for `path`: one input per data set of a folder of questions, one for anything else.

    Args:
        context: the use of the data in the run, e.g. "training".

    All data sets of a folder have the folder's digest, because they are written and fetched
    together.
    """
    from routerr1.lineage import dvc_digest, known_commit

    register()
    source = DvcSource(path.as_posix(), dvc_digest(path), known_commit())
    tags = [InputTag("mlflow.data.context", context)]
    if not all(split_path(path, split).is_file() for split in SPLITS):
        sets: dict[str, Mapping[str, Any] | None] = {path.as_posix(): None}
    else:
        sets = dict(_profiles(path))
    return [
        DatasetInput(_DataSet(source, name, profile)._to_mlflow_entity(), tags)
        for name, profile in sets.items()
    ]


def register() -> None:
    """Teach MLflow the source type "dvc", so that `mlflow.data.get_source` gives a `DvcSource`."""
    source: Any = DvcSource  # MLflow's hints ask for an instance, its code for the class
    if source not in get_registered_sources():
        register_dataset_source(source)


def _profiles(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (dataset, split), group in card.describe(folder).items():
        hops = {str(number): rows for number, rows in group.hops.items()}
        fields = {"rows": group.rows, "hops": hops, "longest_question_chars": group.longest}
        found.setdefault(dataset, {})[split] = fields
    return found


def _schema() -> Schema:
    texts = ("id", "dataset", "question", "split", "metadata")
    return Schema(
        [
            *(ColSpec(DataType.string, name) for name in texts),
            ColSpec(Array(DataType.string), "golden_answers"),
            ColSpec(DataType.integer, "hops", required=False),
        ]
    )
