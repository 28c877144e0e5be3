"""Routing against format repair on the paper's own six candidates, from their recorded replies to NQ questions.

Every router is judged by the answer in the tag, as published, and once more with replies without a tag repaired:
by a rule (`repaired_answer`), and by a perfect reader (a bound). The difference between columns is what repair
gains; the difference between rows of one column is what routing gains. Five random halvings, both folds; nothing
is called or paid.

    python -m benchmarks.nq_replay LOG [--out docs/results/nq-six]

LOG is a JSON-lines file of one reply for each query and model (`replay_study.RecordedReply`), gzipped or not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import shared
from routerr1.baselines.replay_study import (
    REPAIRED,
    Metric,
    ReplayResult,
    ReplayStudy,
    read_log,
    study,
)
from routerr1.config import BaselineParams, EvaluateParams, load_params
from routerr1.evaluate.results import Comparison, Estimate, Figure, Result
from routerr1.files import atomic_write_text
from routerr1.jobs.progress import track
from routerr1.protocol import extract_answer
from routerr1.report import markdown
from routerr1.report.formatting import estimate, gap, number, p_text
from routerr1.report.glossary import entry_of
from routerr1.report.sections import Cell, Section, Table, table_of

ROUTERS = (
    "knn", "frugal", "best_8", "best_40", "beta_8", "beta_40", "thompson_8", "thompson_40", "knn_8", "knn_40",
    "knn_spend_5",
)  # fmt: skip
LABELS: Mapping[Metric, str] = {
    "em_in_tag": "EM in tag",
    "em_repaired": "EM, repaired by rule",
    "em_readable": "EM, perfect reader",
    "f1_in_tag": "F1 in tag",
    "f1_repaired": "F1, repaired by rule",
    "gold_contained": "Contained",
}


class Split(Result):
    """One router's gains in exact match over the best single model in the tag.

    Attributes:
        routing: the router in the tag.
        repair: the best single model for repaired replies.
        both: the router with repaired replies.
    """

    router: str
    routing: Figure
    repair: Figure
    both: Figure


class Six(Result):
    """docs/results/nq-six.json.

    Attributes:
        untagged: model -> share of its replies without an answer tag.
    """

    log: str
    untagged: Mapping[str, Figure]
    studies: Mapping[Metric, ReplayStudy]
    splits: tuple[Split, ...]


def run(
    log: Path, baselines: BaselineParams, params: EvaluateParams, *, repetitions: int = 5
) -> Six:
    """Every router under every metric."""
    known = read_log(log, "gold_contained")
    studies: dict[Metric, ReplayStudy] = {}
    for metric in LABELS:
        matrix = known if metric == "gold_contained" else read_log(log, metric)
        with track(f"nq, {metric}", 2 * repetitions) as bar:
            studies[metric] = study(
                matrix, baselines, params, known=known, repair=metric in REPAIRED,
                repetitions=repetitions, progress=bar.update,
            )  # fmt: skip
    untagged = {
        name.rpartition("/")[2]: sum(extract_answer(line[place]) is None for line in known.replies)
        / len(known.replies)
        for place, name in enumerate(known.candidates)
    }
    return Six(log=log.name, untagged=untagged, studies=studies, splits=splits_of(studies))


def splits_of(studies: Mapping[Metric, ReplayStudy]) -> tuple[Split, ...]:
    """What each router gains by routing, by repair, and by both, in exact match."""
    as_said, repaired = (_quality(studies[metric]) for metric in ("em_in_tag", "em_repaired"))
    base = as_said["best_single"]
    return tuple(
        Split(
            router=name,
            routing=as_said[name] - base,
            repair=repaired["best_single"] - base,
            both=repaired[name] - base,
        )
        for name in as_said
        if name != "best_single"
    )


def _quality(found: ReplayStudy) -> dict[str, float]:
    return {entry.router: entry.quality.mean for entry in found.routers}


def page(found: Six) -> str:
    """The tables as Markdown."""
    first = found.studies["em_in_tag"]
    note = (
        f"n = {first.n} questions, {first.repetitions} x 2 folds; {round(100 * first.confidence)} % bootstrap "
        f"intervals over questions and repetitions ({first.resamples} draws). Each router learns on the other half "
        "under the metric of the column."
    )
    differences = {
        entry.router: {
            metric: next(each.difference for each in own.routers if each.router == entry.router)
            for metric, own in found.studies.items()
        }
        for entry in _ranked(found)
    }
    return markdown.render(
        [
            Section("Every router under every metric", note, _qualities(found)),
            against_best(
                "which is chosen on the learning half, in the same column",
                {_label(name): own for name, own in differences.items() if name != "best_single"},
                ("em_in_tag", "em_repaired", "gold_contained"),
            ),
            Section(
                "How much is repair, how much is routing",
                "Exact match over that of the best single model in the tag: by the router alone, by repair alone (the "
                "best single model of repaired replies), and by both.",
                _splits(found),
            ),
            Section(
                "Replies without an answer tag",
                table=table_of(("Model", "Share"), [[n, number(s, 3)] for n, s in found.untagged.items()]),
            ),
        ]
    )  # fmt: skip


def _ranked(found: Six) -> list[ReplayResult]:
    return sorted(
        found.studies["em_in_tag"].routers, key=lambda entry: (-entry.quality.mean, entry.router)
    )


def _qualities(found: Six) -> Table:
    heads = ("Router", *LABELS.values(), "USD per 1,000 (EM in tag)")
    by_metric: dict[Metric, dict[str, Estimate]] = {
        metric: {entry.router: entry.quality for entry in own.routers}
        for metric, own in found.studies.items()
    }
    rows: list[list[Cell | str]] = [
        [
            _label(entry.router),
            *(estimate(by_metric[metric][entry.router], 3) for metric in LABELS),
            number(entry.cost_usd.mean, 4, 1000),
        ]
        for entry in _ranked(found)
    ]
    return table_of(heads, rows)


def against_best(
    chosen: str, differences: Mapping[str, Mapping[Metric, Comparison]], shown: Sequence[Metric]
) -> Section:
    """Routers minus the best single model.

    Args:
        chosen: how that model is chosen, as a relative clause.
        differences: label of a router -> its differences.
    """
    rows = [
        [label, *(cell for metric in shown for cell in _compared(own[metric]))]
        for label, own in differences.items()
    ]
    heads = ["Router", *(head for metric in shown for head in (LABELS[metric], "p", "MDE"))]
    note = (
        f"The router minus the best single model, {chosen}. p is Holm-corrected over the routers of a column; the "
        "intervals are not corrected. MDE, the minimum detectable effect, is the smallest true difference that four of "
        "five such studies find."
    )
    return Section("Against the best single model", note, table_of(heads, rows))


def _compared(difference: Comparison) -> tuple[Cell | str, ...]:
    return gap(difference, 3), p_text(difference), number(difference.mde, 3)


def _splits(found: Six) -> Table:
    rows = [
        [_label(s.router), *(number(v, 3, signed=True) for v in (s.routing, s.repair, s.both))]
        for s in sorted(found.splits, key=lambda split: (-split.both, split.router))
    ]
    return table_of(("Router", "Routing alone", "Repair alone", "Both"), rows)


def _label(router: str) -> str:
    return entry_of(router, simulated=False, policy=False).label


INTRODUCTION = """# Routing or format? The paper's six candidates on 500 NQ questions

`python -m benchmarks.nq_replay llmrouter_nq_6llm.jsonl.gz` on the recorded replies of Router-R1's
six candidates (ulab-uiuc/LLMRouter, commit 8e724d63f229, MIT). Nothing is called or paid. The log
has whole questions only, so every router here chooses among replies to the whole question.
[nq-policy.md](nq-policy.md) has a multi-round policy that is trained on it.

- *in tag*: the answer between `<answer>` and `</answer>`; a reply without the tag is wrong.
- *repaired by rule*: without the tag, the short answer of the first sentence counts.
- *perfect reader*: without the tag, the reply is right if it contains a reference answer. No reader
  of these replies can be above it.
- *contained*: any reply is right if it contains a reference answer.

"""


def main() -> None:
    """Run; write OUT.json and OUT.md."""
    parser = shared.parser(__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/nq-six"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--embedder", default=None, help="instead of baselines.embedder")
    given = parser.parse_args()
    params = load_params(Path("params.yaml"))
    baselines = params.baselines.replace(include=ROUTERS)
    if given.embedder:
        baselines = baselines.replace(embedder=given.embedder)
    found = run(given.log, baselines, params.evaluate, repetitions=given.repetitions)
    found.write(given.out.with_suffix(".json"))
    atomic_write_text(given.out.with_suffix(".md"), INTRODUCTION + shared.wrapped(page(found)))


if __name__ == "__main__":
    main()
