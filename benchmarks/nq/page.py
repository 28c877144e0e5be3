"""The page of a policy on recorded replies: tables, and how to read them."""

from collections.abc import Mapping

from benchmarks import shared
from benchmarks.nq.study import (
    BEFORE,
    BEST,
    FIRST,
    LEARNED_BY,
    ORACLE,
    POLICY,
    Arm,
    Behaviour,
    Parts,
    Study,
)
from benchmarks.nq.training import QUESTIONS, ROLLOUTS
from benchmarks.nq_replay import LABELS, against_best
from routerr1.baselines.replay_study import METRICS
from routerr1.evaluate.results import Comparison
from routerr1.report import markdown
from routerr1.report.formatting import estimate, gap, number
from routerr1.report.sections import Cell, Section, Table, table_of

_LABELS: Mapping[str, str] = {
    ORACLE: "Oracle, of each column",
    "baseline/majority_of_three": "Majority of three",
    "baseline/two_best_tagged": "Two best, the tagged one",
    BEST: "Best single model",
    "best_single_repaired": "Best single model; the next best if there is no tag",
    "best_single_sure": "Best single model; the next best if there is no tag, or no answer in it",
    "baseline/frugal": "FrugalGPT",
    "baseline/knn": "kNN",
    POLICY: "**Policy**",
    FIRST: "Policy, its first call only",
    "policy_first_repaired": "Policy, its first call; the next best if there is no tag",
    "policy_best_called": "Policy's calls, answered by the best model among them",
    BEFORE: "Policy before reinforcement learning",
}

_INTRODUCTION = """# A policy on the paper's six candidates

{headline}

The policy is trained on recorded replies of Router-R1's six candidates
(ulab-uiuc/LLMRouter, commit 8e724d63f229, MIT) and played by replay. Nothing is called or paid.

```bash
python -m benchmarks.nq_policy llmrouter_nq_6llm.jsonl.gz {options}
```

- The log has replies to whole questions only. So the policy asks a candidate the whole question and
  reads the end of its reply. It may ask another candidate, and answers with one of the replies by
  reference ([how it learns](../how-to/questions.md#train-a-policy-on-them)).
- The answer of every router is what the chosen reply has between `<answer>` and `</answer>`. A
  reply without the tag is wrong. The policy is rewarded by this rule, and its look-ups judge the
  probes by it.
- *Contained* judges the whole chosen reply, with or without the tag.
- One half of the questions is for learning. The policy takes its probes and training questions
  from four fifths of it, and chooses its best step on the last fifth. The other routers learn from
  all of it.
- The learning rate and the weight of rehearsal were chosen on the 50 validation questions of the
  second halving. Of these, 19, 26, 21 and 26 are test questions of the first, third, fourth and
  fifth halving.

"""


def page(found: Study) -> str:
    """The whole page, as Markdown."""
    options = (
        f"--repetitions {found.halvings} --folds {found.folds} --seeds {found.seeds} --steps {found.steps} "
        f"--warmstart-steps {found.warmstart_steps}"
    )
    introduction = _INTRODUCTION.format(headline=_headline(found), options=options)
    return introduction + shared.wrapped(_tables(found))


def _headline(found: Study) -> str:
    """The policy beside the best single model, and each training by itself."""
    policy, best = (found.arm(name).quality[LEARNED_BY].mean for name in (POLICY, BEST))
    least = found.arm(POLICY).difference[LEARNED_BY]
    low, high = number(least.low, 3, signed=True), number(least.high, 3, signed=True)
    verdict = "beats" if least.is_clear and least.mean > 0 else "does not beat"
    return shared.wrapped(
        f"**The policy {verdict} the best single model**: it has {policy:.3f} exact match in the tag, the best single "
        f"model {best:.3f}. The difference is {least.mean:+.3f} [{low}, {high}]. Its trainings, one by one, have "
        f"{', '.join(f'{run.em:.3f}' for run in found.runs)}. Each takes {found.steps} steps, which is short, so the "
        "interval is wide and says little about longer training."
    )  # fmt: skip


def _tables(found: Study) -> str:
    tested = found.tested // found.halvings
    each = "every question once" if tested == found.n else f"{tested} questions"
    trained = "one training" if found.seeds == 1 else f"{found.seeds} trainings"
    note = (
        f"{found.halvings} random halvings of {found.n} questions, each of which tests {each} "
        f"({'both directions' if found.folds == 2 else 'one direction'}); {trained} of the policy on each learning half, "
        f"{len(found.runs)} in all. {round(100 * found.confidence)} % bootstrap intervals over questions and halvings "
        f"({found.resamples} draws). All routers learn by exact match in the tag, and the columns judge the same choices."
    )
    return markdown.render(
        [
            Section("Every router", note, _qualities(found)),
            against_best(
                "which the learning half chooses by exact match in the tag",
                {_LABELS[arm.name]: arm.difference for arm in _ranked(found) if arm.name != BEST},
                METRICS,
            ),
            Section(
                "How much is routing, how much is repair",
                "The policy's difference to the best single model in exact match in the tag, by where it comes from. An "
                "answer that refers to no reply is a fault of a short training, not of routing.",
                _fields(("Part", "EM in tag"), found.parts),
            ),
            Section("What the policy does", table=_fields(("What the policy does", "Share of questions"), found.behaviour)),
            Section(
                "Each training",
                f"A warm start of {found.warmstart_steps} steps on the learning half, and {found.steps} steps of "
                f"reinforcement learning with {QUESTIONS * ROLLOUTS} rollouts each. EM on validation is greedy, on pools "
                "drawn from the candidates with other names, some of them missing or down. At the default learning rate "
                "a first attempt on two halvings lost the format, so the rate here is half of it. Minutes are wall time on "
                "two busy cores, without the warm start.",
                _runs(found),
            ),
        ]
    )  # fmt: skip


def _qualities(found: Study) -> Table:
    heads = ("Router", *(LABELS[metric] for metric in METRICS), "USD per 1,000", "Calls")
    rows: list[list[Cell | str]] = [
        [
            _LABELS[arm.name],
            *(estimate(arm.quality[metric], 3) for metric in METRICS),
            number(arm.cost_usd.mean, 4, 1000),
            number(arm.calls.mean, 2),
        ]
        for arm in _ranked(found)
    ]
    return table_of(heads, rows)


def _fields(heads: tuple[str, str], found: Parts | Behaviour) -> Table:
    """A line for each field, under its title."""
    rows = [
        [field.title or name, _cell(getattr(found, name))]
        for name, field in type(found).model_fields.items()
    ]
    return table_of(heads, rows)


def _cell(value: Comparison | float) -> Cell | str:
    return gap(value, 3) if isinstance(value, Comparison) else number(value, 3)


def _runs(found: Study) -> Table:
    heads = (
        "Halving, seed", "EM on validation: before", "best", "at step", "EM in tag", "Best single model", "Calls",
        "First to the best single", "No reference: before", "after", "Minutes",
    )  # fmt: skip
    rows = [
        [
            f"{run.halving}{f'.{run.fold}' if found.folds > 1 else ''}, {run.seed}",
            number(run.validation_before, 3), number(run.validation, 3), str(run.best_step), number(run.em, 3),
            number(run.best_single, 3), number(run.calls, 2), number(run.first_is_best_single, 2),
            number(run.no_reference_before, 3), number(run.no_reference, 3), number(run.minutes, 1),
        ]
        for run in found.runs
    ]  # fmt: skip
    return table_of(heads, rows)


def _ranked(found: Study) -> list[Arm]:
    return sorted(found.arms, key=lambda arm: -arm.quality[LEARNED_BY].mean)
