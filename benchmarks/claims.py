"""Compare every figure that the texts claim with the file that it comes from, and print the README's table.

    python -m benchmarks.claims            # names each claim that its file does not support; status 1 if there is one
    python -m benchmarks.claims summary    # data/eval/table.json -> docs/results/embedded/summary.json
    python -m benchmarks.claims table      # print the table of summary.json; --write puts it into the texts

A claim names a text, words of it, a file, a field of the file, and the figure. It fails if the text does not
have the words, if the words do not have the figure, or if the field, rounded as the figure is, is another one.
"""

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import shared
from routerr1.evaluate.controls import (
    BEST_SINGLE,
    CLOSED_BOOK,
    ORACLE,
    POLICY,
    RANDOM,
)
from routerr1.evaluate.results import EvaluationTable, LearningCost, Result
from routerr1.evaluate.routers import RouterId
from routerr1.files import read_json
from routerr1.train.log import train_hours

SUMMARY = Path("docs/results/embedded/summary.json")
TABLE_IN = (Path("README.md"), Path("docs/results/index.md"))
MARKS = "<!-- table of docs/results/embedded/summary.json -->", "<!-- end of the table -->"
_DOT = re.compile(r"\.(?![^\[]*\])")  # not one of a model's name in brackets
_NUMBER = re.compile(r"[-+−]?(?:\d[\d,]*)?\.?\d+")


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of a text.

    Attributes:
        text: where it is claimed.
        words: a part of the text, with blanks and line ends as one; the figure is in it.
        file: where it comes from: JSON, or Markdown with tables.
        field: keys of JSON joined by dots (`curve[rows=10000].checks.cpu_s`); of Markdown `HEADING > row > column`,
            with ` > low` or ` > high` for an end of the interval.
        figure: as it is written; its decimals say how the field is rounded.
    """

    text: str
    words: str
    file: str
    field: str
    figure: str


_EMBEDDED = "docs/results/embedded/summary.json"
_CHANGES = "docs/results/changes.md"
_INDEX = "docs/results/index.md"
_AGAIN = "docs/results/asking-again.md"
_GATEWAY = "docs/results/gateway.json"

_SIX = "docs/results/nq-six.json"
_NQ_POLICY = "docs/results/nq-policy.json"


def _six(metric: str, router: str, part: str = "quality.mean") -> str:
    return f"studies.{metric}.routers[router={router}].{part}"


CLAIMS: tuple[Claim, ...] = (
    Claim(_INDEX, "no tag in .572 of its replies", "docs/results/nq-six.md", "Replies without an answer tag > llama-3.1-70b-instruct > Share", ".572"),
    *(
        Claim(text, words, _SIX, field, figure)
        for text, words, field, figure in (
            ("README.md", "(.340 exact match in the tag; kNN .310;", _six("em_in_tag", "best_single"), ".340"),
            ("README.md", "(.340 exact match in the tag; kNN .310;", _six("em_in_tag", "baseline/knn"), ".310"),
            (_INDEX, "gemma-2-27b-it (.340", _six("em_in_tag", "fixed/gemma-2-27b-it"), ".340"),
            (_INDEX, "kNN has .310: −.030 [−.047, −.012]", _six("em_in_tag", "baseline/knn", "difference.mean"), "−.030"),
            (_INDEX, "on 40 probes has .340", _six("em_in_tag", "baseline/beta_40"), ".340"),
            (_INDEX, "on 8 probes .268: −.072 [−.162, +.024]", _six("em_in_tag", "baseline/beta_8"), ".268"),
            (_INDEX, "on 8 probes .268: −.072 [−.162, +.024]", _six("em_in_tag", "baseline/beta_8", "difference.high"), "+.024"),
            (_INDEX, "kNN on 8 probes has .196", _six("em_in_tag", "baseline/knn_8"), ".196"),
            (_INDEX, "It has .353: +.013 [+.001, +.026]", _six("em_in_tag", "baseline/majority_of_three"), ".353"),
            (_INDEX, "majority is −.002 [−.023, +.019]", _six("em_repaired", "baseline/majority_of_three", "difference.low"), "−.023"),

            (_INDEX, "from .136 to .254", _six("em_in_tag", "fixed/llama-3.1-70b-instruct"), ".136"),
            (_INDEX, "from .136 to .254", _six("em_repaired", "fixed/llama-3.1-70b-instruct"), ".254"),
            (_INDEX, "would get .482 from it", _six("em_readable", "fixed/llama-3.1-70b-instruct"), ".482"),
            (_INDEX, "stays .340 by the rule", _six("em_repaired", "best_single"), ".340"),
            (_INDEX, "taking the tagged one loses**: .244", _six("em_in_tag", "baseline/two_knowing_tagged"), ".244"),
            (_INDEX, "The oracle is .436**, and .590", _six("em_in_tag", "oracle"), ".436"),
            (_INDEX, "The oracle is .436**, and .590", _six("em_readable", "oracle"), ".590"),
        )
    ),
    *(
        Claim(text, words, _NQ_POLICY, field, figure)
        for text, words, field, figure in (
            ("README.md", "a policy is −.035 [−.122, +.057] against it", "arms[name=policy].difference.em_in_tag.mean", "−.035"),
            ("README.md", "a policy is −.035 [−.122, +.057] against it", "arms[name=policy].difference.em_in_tag.low", "−.122"),
            ("README.md", "a policy is −.035 [−.122, +.057] against it", "arms[name=policy].difference.em_in_tag.high", "+.057"),
            (_INDEX, ".313 against .347 exact match in the tag", "arms[name=policy].quality.em_in_tag.mean", ".313"),
            (_INDEX, ".313 against .347 exact match in the tag", "arms[name=best_single].quality.em_in_tag.mean", ".347"),
            (_INDEX, ".830 of its first calls", "behaviour.first_is_best_single", ".830"),
            (_INDEX, "its exact match is .088", "arms[name=policy_before_rl].quality.em_in_tag.mean", ".088"),
            (_INDEX, "routing of the first call**: −.035", "parts.first_call.mean", "−.035"),
            (_INDEX, "holds no answer is +.007 [−.002, +.017]", "arms[name=best_single_sure].difference.em_in_tag.mean", "+.007"),
        )
    ),
    *(
        Claim(text, words, "docs/results/changes.json", f"smallest.{seed}.ratio", figure)
        for text, words in (("README.md", "best-on-cards are **1.05, .98 and 1.00**"), (_INDEX, "is 1.05, .98 and 1.00 for three seeds"))
        for seed, figure in ((1, "1.05"), (2, ".98"), (3, "1.00"))
    ),
    *(
        Claim("README.md", "three seeds have .810, .805 and .785", "docs/results/changes.json", f"seeds.{seed}.training.em", figure)
        for seed, figure in ((1, ".810"), (2, ".805"), (3, ".785"))
    ),
    *(
        Claim("docs/results/middling.md", words, "docs/results/middling.json", f"routers.{field}", figure)
        for words, field, figure in (
            ("next has .864 [.812, .909] exact match", "baseline/ask_again.em.mean", ".864"),
            ("the trained policy .735 [.672, .797]", "policy.em.mean", ".735"),
            ("by kNN has .655", "baseline/knn_multi_turn.em.mean", ".655"),
            ("−.129 [−.195, −.062] against the rule", "baseline/ask_again.minus.mean", "−.129"),
            ("−.129 [−.195, −.062] against the rule", "baseline/ask_again.minus.low", "−.195"),
            ("+.080 [−.008, +.169] against kNN", "baseline/knn_multi_turn.minus.mean", "+.080"),
            ("+.080 [−.008, +.169] against kNN", "baseline/knn_multi_turn.minus.low", "−.008"),
            ("Training brings −.013 [−.049, +.021]", "baseline/policy_before_rl.minus.mean", "−.013"),
        )
    ),
    *(
        Claim("docs/results/own-questions.md", words, "docs/results/own-questions.json", field, figure)
        for words, field, figure in (
            ("have .900 to .950 exact match", "runs[name=de-1].em.policy.mean", ".900"),
            ("have .900 to .950 exact match", "runs[name=de-2].em.policy.mean", ".950"),
            ("best single model has .750", "runs[name=en-1].em.best_single.mean", ".750"),
            ("kNN has .900 and .933", "runs[name=de-1].em.baseline/knn.mean", ".933"),
            ("has .950 and .967", "runs[name=de-1].em.baseline/frugal.mean", ".967"),
        )
    ),
    *(
        Claim(text, words, f"docs/results/{file}.json", f"rows[name={name}].{field}", figure)
        for text, words, file, name, field, figure in (
            ("README.md", "the same policy has .470", "asking-again", "one call", "em.mean", ".470"),
            ("README.md", "majority of three at its price .588", "asking-again", "majority of three, at the policy's cost", "em.mean", ".588"),
            ("README.md", "majority of three has .915 there", "middling-controls", "majority of three", "em.mean", ".915"),
            (_AGAIN, "the policy has .807 [.748, .862]", "asking-again", "policy", "em.mean", ".807"),
            (_AGAIN, ".470 [.398, .544] if it gets one call", "asking-again", "one call", "em.low", ".398"),
            (_AGAIN, "cost has .588 [.521, .653]", "asking-again", "majority of three, at the policy's cost", "em.high", ".653"),
            (_AGAIN, "as much .714 [.646, .777]", "asking-again", "majority of three", "em.mean", ".714"),
            ("docs/results/middling.md", "+.170 [+.117, +.227] over the same policy", "middling-controls", "one call", "policy_minus.mean", "+.170"),
            ("docs/results/middling.md", "with one call**: −.019 [−.106, +.070]", "middling-controls", "best on cards, one call", "policy_minus.mean", "−.019"),
            ("docs/results/middling.md", "−.050 [−.130, +.032] against it", "middling-controls", "majority of three, at the policy's cost", "policy_minus.mean", "−.050"),
        )
    ),
    Claim("README.md", "−.129 [−.195, −.062] against it", "docs/results/middling.json", "routers.baseline/ask_again.minus.mean", "−.129"),
    *(
        Claim("docs/results/look-ups.md", words, "docs/results/look-ups.json", f"test.own[left={left}].em.{end}", figure)
        for words, left, end, figure in (
            ("has .786 [.722, .845] on the test", 0.95, "mean", ".786"),
            ("has .786 [.722, .845] on the test", 0.95, "low", ".722"),
            ("has .786 [.722, .845] on the test", 0.95, "high", ".845"),
            ("gives it .642 [.568, .712]", 0.0, "mean", ".642"),
        )
    ),
    Claim("docs/results/embedded/README.md", "always does so has .786", "docs/results/look-ups.json", "test.own[left=0.95].em.mean", ".786"),
    *(
        Claim("docs/results/collapse.md", words, "docs/results/collapse.json", field, figure)
        for words, field, figure in (
            ("Without rehearsal 6 of 6", "variants.no rehearsal.collapsed", "6"),
            ("with it 0 of 8", "variants.the default.collapsed", "0"),
            ("exact match is .768 with rehearsal and .309", "variants.the default.em_own.mean", ".768"),
            ("exact match is .768 with rehearsal and .309", "variants.no rehearsal.em_own.mean", ".309"),
            ("standard deviation of .061", "variants.the default.em_own.deviation", ".061"),
            ("of two settings needs 24 such", "seeds_for_a_difference.seeds_of_each", "24"),
        )
    ),
    Claim("README.md", "Level 0 costs .07 of", "docs/results/spend.json", "cheapest_over_dearest_level", ".07"),
    *(
        Claim("README.md", "+.099 [+.051, +.142] above kNN with the same prices", "docs/results/spend.json", f"area_difference.knn.{field}", figure)
        for field, figure in (("mean", "+.099"), ("low", "+.051"), ("high", "+.142"))
    ),
    *(
        Claim(_INDEX, words, "docs/results/added-model.json", f"models[name=Qwen-1.5B].curve[probes={probes}].{field}", figure)
        for words, probes, field, figure in (
            ("changes by +.160 [+.066, +.252]", 8, "gain.mean", "+.160"),
            ("changes by +.160 [+.066, +.252]", 8, "gain.low", "+.066"),
            ("changes by +.160 [+.066, +.252]", 8, "gain.high", "+.252"),
            ("1.00 of the first calls", 8, "first_calls", "1.00"),
            ("With 120 probes .94 do", 120, "first_calls", ".94"),
        )
    ),
    Claim(_INDEX, "+.143 [+.012, +.286] with 120", "docs/results/added-model.json", "models[name=Science-0.5B].curve[probes=120].gain.mean", "+.143"),
    Claim(_INDEX, "the policy keeps at least .89 of what best-on-cards reaches", _CHANGES, "Simulated models, `preset: simulated` > few_probes > ratio", ".89"),
    Claim(_INDEX, "exact match .970 [.944, .989]", "docs/results/smollm2/eval-table.md", " > policy > EM", ".970"),
    Claim(_INDEX, "exact match .970 [.944, .989]", "docs/results/smollm2/eval-table.md", " > policy > EM > low", ".944"),
    Claim(_INDEX, ".530 [.442, .616] from the same policy", "docs/results/smollm2/eval-table.md", " > best_single > EM", ".530"),
    Claim(_INDEX, "and the oracle .996", "docs/results/smollm2/eval-table.md", " > oracle > EM", ".996"),
    Claim(_INDEX, "140 against 31 requests a second, 127 against 380 MB", _GATEWAY, "gateway.clients_32.requests_per_s", "140"),
    Claim(_INDEX, "140 against 31 requests a second, 127 against 380 MB", _GATEWAY, "litellm.clients_32.requests_per_s", "31"),
    Claim(_INDEX, "140 against 31 requests a second, 127 against 380 MB", _GATEWAY, "gateway.memory_mb", "127"),
    Claim(_INDEX, "140 against 31 requests a second, 127 against 380 MB", _GATEWAY, "litellm.memory_mb", "380"),
    Claim(_INDEX, "two busy cores | 2.5 ms", _GATEWAY, "gateway.overhead.median_ms", "2.5"),
    Claim(_INDEX, "after the candidate's own | 8 ms", _GATEWAY, "gateway.first_token_beyond_stub_ms", "8"),
    Claim(_INDEX, "on one thread | 2.0 s of CPU time", "docs/results/train.json", "seconds.step", "2.0"),
    Claim(_INDEX, "9.4 s longer", "docs/results/flow.json", "overhead_s", "9.4"),
    Claim(_INDEX, "22 ms a token, 93 without", "docs/results/decoding.json", "replayed_second_ms", "22"),
    Claim(_INDEX, "22 ms a token, 93 without", "docs/results/decoding.json", "launched_second_ms", "93"),
    Claim("docs/how-to/operate.md", "takes 9.4 s longer than plain `dvc repro`", "docs/results/flow.json", "overhead_s", "9.4"),
    Claim("docs/how-to/train.md", "93 ms a token for 256 sessions became 22", "docs/results/decoding.json", "launched_second_ms", "93"),
    Claim("docs/how-to/train.md", "93 ms a token for 256 sessions became 22", "docs/results/decoding.json", "replayed_second_ms", "22"),
    Claim("docs/how-to/train.md", "the same in 24 of 24 greedy sessions", "docs/results/decoding.json", "equal", "24"),
    Claim("docs/explanation/training.md", "a step of 192 rollouts takes 2.0 s of CPU time", "docs/results/train.json", "seconds.step", "2.0"),
    Claim("docs/explanation/training.md", "Generation takes 0.8 of it", "docs/results/train.json", "seconds.generation", "0.8"),
    Claim("docs/explanation/training.md", "and the update 1.0", "docs/results/train.json", "seconds.update", "1.0"),
    Claim("docs/explanation/training.md", "The whole step is 1.14 times these two", "docs/results/train.json", "ratio", "1.14"),
    *(
        Claim("docs/explanation/data.md", words, "docs/results/data-scale.json", f"curve[rows={rows}].{stage}.cpu_s", figure)
        for rows, words, dataset, checks in (
            (10_000, "| 10,000 | 1.9 | 3.4 |", "1.9", "3.4"),
            (100_000, "| 100,000 | 10.0 | 11.0 |", "10.0", "11.0"),
            (1_000_000, "| 1,000,000 | 91.8 | 98.2 |", "91.8", "98.2"),
            (2_000_000, "| 2,000,000 | 193.6 | 171.7 |", "193.6", "171.7"),
        )
        for stage, figure in (("dataset", dataset), ("checks", checks))
    ),
    Claim("docs/results/evaluation.md", "0.3 s (median) take 2.1 s instead of 19.5", "docs/results/rollouts.json", "own_pace_s", "2.1"),
    Claim("docs/results/evaluation.md", "0.3 s (median) take 2.1 s instead of 19.5", "docs/results/rollouts.json", "in_step_s", "19.5"),
    Claim("docs/results/evaluation.md", "888 trajectories and 864", "docs/results/evaluate.json", "schedule.trajectories", "888"),
    *(
        Claim(text, words, _EMBEDDED, field, figure)
        for text in ("README.md", _INDEX)
        for words, field, figure in (
            ("528 test questions in 176 groups", "n", "528"),
            ("528 test questions in 176 groups", "groups", "176"),
            ("+.278 [+.210, +.348] above a kNN", "routers.baseline/knn_multi_turn.minus.mean", "+.278"),
            ("+.278 [+.210, +.348] above a kNN", "routers.baseline/knn_multi_turn.minus.low", "+.210"),
            ("+.278 [+.210, +.348] above a kNN", "routers.baseline/knn_multi_turn.minus.high", "+.348"),
            ("+.078 [+.044, +.117] a", "routers.baseline/ask_sure_first.minus.mean", "+.078"),
            ("+.078 [+.044, +.117] a", "routers.baseline/ask_sure_first.minus.low", "+.044"),
            ("+.078 [+.044, +.117] a", "routers.baseline/ask_sure_first.minus.high", "+.117"),
        )
    ),
    *(
        Claim(_INDEX, "+.140 [+.091, +.193] against", _EMBEDDED, f"routers.baseline/ask_again.minus.{end}", figure)
        for end, figure in (("mean", "+.140"), ("low", "+.091"), ("high", "+.193"))
    ),
    *(
        Claim("README.md", "from eight probes: +.193 [+.131, +.258]", _EMBEDDED, f"routers.baseline/beta_8.minus.{end}", figure)
        for end, figure in (("mean", "+.193"), ("low", "+.131"), ("high", "+.258"))
    ),
    *(
        Claim("docs/results/evaluation.md", words, _EMBEDDED, f"routers.{router}.em.mean", figure)
        for words, router, figure in (
            ("The policy (.812)", "policy", ".812"),
            ("the oracle of fixed models (.650:", "oracle", ".650"),
            ("sub-questions of the base policy (.534)", "baseline/knn_multi_turn", ".534"),
            ("own choices has .472", "baseline/policy_before_rl", ".472"),
            ("and then the next (.672)", "baseline/ask_again", ".672"),
            ("asks the surest first (.735)", "baseline/ask_sure_first", ".735"),
            ("one candidate is above .347", "baseline/bert", ".347"),
            ("`best_of_singles`, is .612", "best_of_singles", ".612"),
            ("RAG (.432)", "baseline/rag", ".432"),
            ("Search-R1 (.983)", "baseline/search_r1", ".983"),
            ("SFT finds .078", "baseline/sft", ".078"),
        )
    ),
    *(
        Claim("docs/results/embedded/README.md", words, _EMBEDDED, f"routers.baseline/{field}", figure)
        for words, field, figure in (
            ("has .472 [.409, .534]", "policy_before_rl.em.mean", ".472"),
            ("has .735 [.670, .795]", "ask_sure_first.em.mean", ".735"),
            ("has .672: +.140 [+.091, +.193]", "ask_again.em.mean", ".672"),
            ("paired difference is +.341", "policy_before_rl.minus.mean", "+.341"),
            ("warm-started model, has .534", "knn_multi_turn.em.mean", ".534"),
            ("on 8 probes has .619 [.547, .688]", "beta_8.em.mean", ".619"),
            ("router has .515", "beta_40.em.mean", ".515"),
            ("**`search_r1` is .983**", "search_r1.em.mean", ".983"),
        )
    ),
)  # fmt: skip


class Row(Result):
    """One router of the summary; shares and US dollars of a question."""

    em: Mapping[str, float | None]
    cost_usd: Mapping[str, float | None]
    calls: float
    minus: Mapping[str, float | None] | None = None
    learning: LearningCost | None = None


class Summary(Result):
    """The figures of an evaluation that texts name.

    Attributes:
        minutes: of training for each seed, in the mean; None where it was not timed.
        routers: name -> figures; `minus` is the reference's exact match less the router's.
    """

    n: int
    groups: int
    seeds: tuple[int, ...]
    reference: str
    best_single: tuple[str, ...]
    minutes: float | None
    routers: Mapping[str, Row]


def summary_of(table: EvaluationTable, minutes: float | None) -> Summary:
    """The figures of the table that texts name."""
    ends = ("mean", "low", "high")
    routers = {
        entry.router: Row(
            em={end: getattr(entry.em, end) for end in ends},
            cost_usd={end: getattr(entry.cost_usd, end) for end in ends},
            calls=entry.calls.mean,
            minus={end: getattr(entry.difference["em"], end) for end in ends}
            if entry.difference
            else None,
            learning=entry.learning,
        )
        for entry in table.routers
    }
    return Summary(
        n=table.n,
        groups=table.groups,
        seeds=table.router(table.reference).seeds,
        reference=table.reference,
        best_single=tuple(sorted(set(table.best_single.values()))),
        minutes=minutes,
        routers=routers,
    )


def training_minutes(seconds: Path) -> float | None:
    """Minutes of training for a seed, in the mean; None without the file.

    Args:
        seconds: runs/train/seconds.csv.
    """
    if not seconds.is_file():
        return None
    by_seed: dict[str, list[dict[str, float]]] = defaultdict(list)
    with seconds.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            by_seed[row["seed"]].append({key: float(value or 0) for key, value in row.items()})
    return round(60 * fmean(train_hours(rows) for rows in by_seed.values()), 1)


_WHAT = {
    ORACLE: "oracle: each question by the fixed model that does best on it, in hindsight",
    POLICY: "**trained policy**",
    BEST_SINGLE: "best single model ({best_single}), by probes and validation",
    RANDOM: "random model for each call",
    CLOSED_BOOK: "closed book: no call",
    "baseline/policy_before_rl": "the policy before reinforcement learning",
    "baseline/knn_multi_turn": "kNN over all probes, for each sub-question",
    "baseline/ask_sure_first": "rule: who is surest on the topic, then the next, for each sub-question",
    "baseline/ask_again": "rule: who is best on the topic, then the next, for each sub-question",
    "baseline/beta_40": "Beta mean on 40 probes, for each sub-question",
    "baseline/beta_8": "Beta mean on 8 probes, for each sub-question",
}
"""The rows of the README's table."""


def table_text(summary: Summary) -> str:
    """The README's table, the highest exact match first."""
    shown = {name: row for name, row in summary.routers.items() if name in _WHAT}
    learned = any(row.learning is not None for row in shown.values())
    heads = ["router", "exact match", "USD per 1000 questions", "calls"]
    heads += ["learning: calls, USD, minutes"] * learned
    rows = []
    order = sorted(shown, key=lambda name: (-(shown[name].em["mean"] or 0.0), name))
    for name in order:
        row = shown[name]
        em = _point(row.em["mean"])
        cells = [_WHAT[name].format(best_single=", ".join(summary.best_single))]
        cells.append(
            f"{f'**{em}**' if name == POLICY else em} [{_point(row.em['low'])}, {_point(row.em['high'])}]"
        )
        cost = 1000 * (row.cost_usd["mean"] or 0.0)
        cells += [f"{cost:.4f}".removeprefix("0") if cost else "0"]
        cells += [f"{row.calls:.2f}" if row.calls else "0"]
        cells += [_learning(name, row, summary.minutes)] * learned
        rows.append(cells)
    return shared.table(heads, rows)


def _learning(name: str, row: Row, minutes: float | None) -> str:
    cost = row.learning
    if cost is None:
        return "–"
    trained = RouterId.parse(name).kind != "baseline" and minutes is not None
    text = f"{cost.calls:,.0f}, {cost.cost_usd:.4f}"
    return f"{text}, {minutes:.0f}" if trained else f"{text}, –"


def _point(value: float | None) -> str:
    """A share as the texts write it.

    >>> _point(0.958), _point(1.0)
    ('.958', '1.000')
    """
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def failures(root: Path, claims: Sequence[Claim] = CLAIMS) -> Iterator[str]:
    """What is wrong with each claim that fails, and with each text whose table is not the summary's."""
    for claim in claims:
        reason = _failure(root, claim)
        if reason is not None:
            yield f"{claim.text}: “{claim.words}”: {reason}"
    table = table_text(Summary.read(root / SUMMARY))
    for path in TABLE_IN:
        text = (root / path).read_text(encoding="utf-8")
        if MARKS[0] not in text:
            yield f"{path}: has no mark {MARKS[0]}"
        elif shared.filled(text, MARKS, table) != text:
            yield f"{path}: its table is not that of {SUMMARY}; run `python -m benchmarks.claims table --write`"


def _failure(root: Path, claim: Claim) -> str | None:
    text = " ".join((root / claim.text).read_text(encoding="utf-8").split())
    if claim.words not in text:
        return "the text does not have these words; correct the claim in benchmarks/claims.py"
    if claim.figure not in claim.words:
        return f"the words do not have the figure {claim.figure}"
    try:
        value = field_of(root / claim.file, claim.field)
    except (KeyError, OSError, TypeError, ValueError) as error:
        return f"{claim.file}: {claim.field}: not found ({error})"
    decimals = len(claim.figure.partition(".")[2])
    written = float(claim.figure.replace("−", "-").replace(",", ""))
    if round(value, decimals) != written:
        return f"{claim.file}: {claim.field} is {value:.6g}, not {claim.figure}"
    return None


def field_of(path: Path, field: str) -> float:
    """The figure at a field of a JSON file, or of a table in a Markdown file; see `Claim.field`.

    Raises: KeyError if there is no such field; ValueError if it holds no figure.
    """
    if path.suffix == ".md":
        return _cell(path.read_text(encoding="utf-8"), field)
    value: Any = read_json(path)
    for part in _DOT.split(field):
        name, _, condition = part.partition("[")
        value = value[name] if name else value
        if condition:
            key, _, wanted = condition.removesuffix("]").partition("=")
            value = next((row for row in value if str(row[key]) == wanted), None)
            if value is None:
                raise KeyError(part)
    return float(value)


def _cell(text: str, field: str) -> float:
    heading, row, column, *end = field.split(" > ")
    section = text
    if heading.strip():
        _, found, section = text.partition(f"# {heading.strip()}\n")
        if not found:
            raise KeyError(heading)
        section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    heads: list[str] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            heads = []
        elif not heads:
            heads = cells
        elif cells[0] == row and column in heads:
            figures = _NUMBER.findall(cells[heads.index(column)])
            place = {(): 0, ("low",): 1, ("high",): 2}[tuple(end)]
            return float(figures[place].replace("−", "-").replace(",", ""))
    raise KeyError(f"{row} > {column}")


def main() -> int:
    """Check, summarise or print."""
    parser = shared.parser(__doc__)
    parser.add_argument("what", nargs="?", default="check", choices=("check", "summary", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="outputs of the stages")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where train was timed")
    parser.add_argument("--write", action="store_true", help="put the table into the texts")
    given = parser.parse_args()
    if given.what == "summary":
        table = EvaluationTable.read(given.data / "eval/table.json")
        summary_of(table, training_minutes(given.runs / "train/seconds.csv")).write(SUMMARY)
        return 0
    if given.what == "table":
        table_of_readme = table_text(Summary.read(SUMMARY))
        print(table_of_readme)
        for path in TABLE_IN if given.write else ():
            shared.fill(path, MARKS, table_of_readme)
        return 0
    found = list(failures(Path()))
    print("\n".join(found) or f"{len(CLAIMS)} claims and {len(TABLE_IN)} tables agree with files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
