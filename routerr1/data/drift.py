"""Drift of question lengths, kinds of answers and topics since the last accepted data."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt
from pathlib import Path
from typing import Self

from routerr1.data.text import ANSWER_TYPES, answer_type
from routerr1.errors import DataError
from routerr1.files import read_json, write_json

_BIN_CHARS, _NUM_BINS = 10, 60  # question lengths; the last bin takes everything longer
# Two samples of one distribution differ by less than this over sqrt(harmonic size) in 999 of 1000 cases
# (Kolmogorov-Smirnov). Without it small data sets would drift by chance.
_CHANCE = 1.95
# The total variation of two samples over any number of topics: its mean under chance, by the normal
# approximation, and what it exceeds the mean by in 1 of 1000 cases (simulated for 2 to 150 topics).
_MEAN_OF_CHANCE, _BEYOND_THE_MEAN = 0.4, 1.25
_MEASURES = ("question_length", "answer_type", "topic")
DRIFT_RULES = ("length_drift", "answer_type_drift", "topic_drift")
"""Names of the expectations on drift."""


@dataclass
class Profile:
    """Histograms by (data set, split): question length in bins of 10 characters, type of the first gold, topic.

    `topics` has no entry for questions without topics.
    """

    lengths: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    answers: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    topics: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def add(
        self,
        dataset: str,
        split: str,
        question: str,
        golds: Sequence[str],
        topic: str | None = None,
    ) -> None:
        """Count one row."""
        length = min(len(question) // _BIN_CHARS, _NUM_BINS - 1) * _BIN_CHARS
        self.lengths.setdefault((dataset, split), Counter())[str(length)] += 1
        self.answers.setdefault((dataset, split), Counter())[answer_type(golds)] += 1
        if topic is not None:
            self.topics.setdefault((dataset, split), Counter())[topic] += 1

    def write(self, path: Path) -> None:
        """Store as canonical JSON; `read` takes it back."""
        stored: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for place in self.lengths:
            counted = (self.lengths[place], self.answers[place], self.topics.get(place))
            dataset, split = place
            stored.setdefault(dataset, {})[split] = {
                name: dict(counts)
                for name, counts in zip(_MEASURES, counted, strict=True)
                if counts is not None
            }
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
                for split, counted in splits.items():
                    profile.lengths[dataset, split] = Counter(counted["question_length"])
                    profile.answers[dataset, split] = Counter(counted["answer_type"])
                    if "topic" in counted:
                        profile.topics[dataset, split] = Counter(counted["topic"])
        except (AttributeError, KeyError, TypeError):
            raise DataError(
                f"{path}: is no data profile; write it with `routerr1 data accept`"
            ) from None
        return profile


def drifts(
    now: Profile, accepted: Profile, max_drift: float
) -> Iterator[tuple[str, str, str, float, float]]:
    """(data set, split, measure, distance, limit) of everything in both profiles.

    Distances lie in [0, 1]: Kolmogorov-Smirnov for lengths, total variation for answer types and topics.
    The limit is `max_drift` plus the effect of chance on samples of these sizes. Topics are compared if
    both profiles have one of the same name: an import that finds other topics names them otherwise.
    """
    for place in sorted(now.lengths.keys() & accepted.lengths.keys()):
        rows, before = now.lengths[place].total(), accepted.lengths[place].total()
        limit = min(max_drift + _CHANCE * sqrt((rows + before) / (rows * before)), 1.0)
        bins = [str(low * _BIN_CHARS) for low in range(_NUM_BINS)]
        moved = _largest_gap(now.lengths[place], accepted.lengths[place], bins)
        yield (*place, "question_length", moved, limit)
        changed = _total_variation(now.answers[place], accepted.answers[place], ANSWER_TYPES)
        yield (*place, "answer_type", changed, limit)
        nothing = Counter[str]()
        topics = now.topics.get(place, nothing)
        earlier = accepted.topics.get(place, nothing)
        if topics.keys() & earlier.keys():
            moved = _total_variation(topics, earlier, sorted({*topics, *earlier}))
            yield (*place, "topic", moved, min(max_drift + _chance(topics, earlier), 1.0))


def _chance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The total variation that two samples of one distribution exceed in 1 of 1000 cases."""
    rows, before = sum(one.values()), sum(other.values())
    pooled = [(one.get(name, 0) + other.get(name, 0)) / (rows + before) for name in {*one, *other}]
    mean = _MEAN_OF_CHANCE * fsum(sqrt(share * (1 - share)) for share in pooled)
    return sqrt((rows + before) / (rows * before)) * (mean + _BEYOND_THE_MEAN)


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
    failed = set(read_json(checks / "checks.json")["failed"]) - set(DRIFT_RULES)
    if failed:
        raise DataError(f"{checks / 'checks.json'}: {', '.join(sorted(failed))} did not hold")
    Profile.read(checks / "profile.json").write(accepted)
