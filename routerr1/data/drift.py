"""Drift of question lengths and kinds of answers since the last accepted data."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Self

from routerr1.data.text import ANSWER_TYPES, answer_type
from routerr1.errors import DataError
from routerr1.files import read_json, write_json

_BIN_CHARS, _NUM_BINS = 10, 60  # question lengths; the last bin takes everything longer
# Two samples of one distribution differ by less than this over sqrt(harmonic size) in 999 of 1000 cases
# (Kolmogorov-Smirnov). Without it small data sets would drift by chance.
_CHANCE = 1.95


@dataclass
class Profile:
    """Histograms by (data set, split): question length in bins of 10 characters, type of the first gold."""

    lengths: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    answers: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def add(self, dataset: str, split: str, question: str, golds: Sequence[str]) -> None:
        """Count one row."""
        length = min(len(question) // _BIN_CHARS, _NUM_BINS - 1) * _BIN_CHARS
        self.lengths.setdefault((dataset, split), Counter())[str(length)] += 1
        self.answers.setdefault((dataset, split), Counter())[answer_type(golds)] += 1

    def write(self, path: Path) -> None:
        """Store as canonical JSON; `read` takes it back."""
        stored: dict[str, dict[str, Any]] = {}
        for (dataset, split), lengths in self.lengths.items():
            answers = self.answers[dataset, split]
            both = {"question_length": dict(lengths), "answer_type": dict(answers)}
            stored.setdefault(dataset, {})[split] = both
        write_json(path, stored)

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The accepted profile; an empty one if `path` is None or no data were accepted yet.

        Raises: DataError naming the file if it is not what `write` writes.
        """
        profile = cls()
        if path is None or not path.exists():
            return profile
        try:
            for dataset, splits in read_json(path).items():
                for split, both in splits.items():
                    profile.lengths[dataset, split] = Counter(both["question_length"])
                    profile.answers[dataset, split] = Counter(both["answer_type"])
        except (AttributeError, KeyError, TypeError):
            raise DataError(
                f"{path}: is no data profile; write it with `routerr1 data accept`"
            ) from None
        return profile


def drifts(
    now: Profile, accepted: Profile, max_drift: float
) -> Iterator[tuple[str, str, str, float, float]]:
    """(data set, split, measure, distance, limit) of everything in both profiles.

    Distances lie in [0, 1]: Kolmogorov-Smirnov for lengths, total variation for answer types. The
    limit is `max_drift` plus the effect of chance on samples of these sizes.
    """
    for place in sorted(now.lengths.keys() & accepted.lengths.keys()):
        rows, before = now.lengths[place].total(), accepted.lengths[place].total()
        limit = min(max_drift + _CHANCE * sqrt((rows + before) / (rows * before)), 1.0)
        bins = [str(low * _BIN_CHARS) for low in range(_NUM_BINS)]
        moved = _largest_gap(now.lengths[place], accepted.lengths[place], bins)
        yield (*place, "question_length", moved, limit)
        changed = _total_variation(now.answers[place], accepted.answers[place], ANSWER_TYPES)
        yield (*place, "answer_type", changed, limit)


def _shares(counts: Mapping[str, int], bins: Sequence[str]) -> list[float]:
    total = sum(counts.values())
    return [counts.get(name, 0) / total for name in bins]


def _largest_gap(now: Mapping[str, int], before: Mapping[str, int], bins: Sequence[str]) -> float:
    gap = largest = 0.0
    for left, right in zip(_shares(now, bins), _shares(before, bins), strict=True):
        gap += left - right
        largest = max(largest, abs(gap))
    return largest


def _total_variation(
    now: Mapping[str, int], before: Mapping[str, int], bins: Sequence[str]
) -> float:
    pairs = zip(_shares(now, bins), _shares(before, bins), strict=True)
    return sum(abs(left - right) for left, right in pairs) / 2


def accept_profile(checks: Path, accepted: Path | None) -> None:
    """Make the profile in the folder `checks` the accepted one.

    Raises: DataError if the checks were not run, failed on anything but drift, or if params name no
        file.
    """
    if accepted is None:
        raise DataError("params.yaml: checks.accepted: is null, so there is nowhere to write to")
    failed = set(read_json(checks / "checks.json")["failed"]) - {
        "length_drift",
        "answer_type_drift",
    }
    if failed:
        raise DataError(f"{checks / 'checks.json'}: {', '.join(sorted(failed))} did not hold")
    Profile.read(checks / "profile.json").write(accepted)
