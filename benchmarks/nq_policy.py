"""A multi-round policy trained and played by replay on the paper's own six candidates, against routers without one.

The log holds the reply of every candidate to every question, so it answers every call that a policy can make which
asks the question as it stands. Of each random halving one half is for learning: the policy's probes, questions and
validation, and what the other routers learn from. The other half is tested. Every router is judged by the same rule:
the answer is what the chosen reply has in its answer tag, and a reply without the tag is wrong. Routers learn by exact
match in the tag.

    python -m benchmarks.nq_policy LOG [--work runs/nq-policy] [--out docs/results/nq-policy]

LOG is a JSON-lines file of one reply for each query and model (`replay_study.RecordedReply`), gzipped or not. Each
training leaves its plays in WORK/halving-H-fold-F-seed-S.json and is not repeated; a killed run starts again at the
training that it was in. Nothing is called or paid.
"""

from pathlib import Path

from benchmarks import shared
from benchmarks.nq.page import page
from benchmarks.nq.study import LEARNED_BY, study_of
from benchmarks.nq.training import params_of, trainings_of
from routerr1.baselines.replay_study import halves_of, read_log
from routerr1.config import load_params
from routerr1.files import atomic_write_text

POOL_FILE = Path("pools/paper.yaml")
ROUTERS = ("knn", "frugal")


def main() -> None:
    """Train what is missing; write OUT.json and OUT.md."""
    parser = shared.parser(__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/nq-policy"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/nq-policy"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folds", type=int, choices=(1, 2), default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--warmstart-steps", type=int, default=700)
    given = parser.parse_args()
    base = load_params(Path("params.yaml"))
    params = params_of(base, steps=given.steps, warmstart_steps=given.warmstart_steps)
    count = len(read_log(given.log, LEARNED_BY).questions)
    halves = halves_of(count, base.evaluate.seed, given.repetitions, given.folds)
    made = trainings_of(given.log, POOL_FILE, halves, given.seeds, given.work, params)
    baselines = base.baselines.replace(include=ROUTERS)
    found = study_of(given.log, made, halves, baselines, base.evaluate)
    found.write(given.out.with_suffix(".json"))
    atomic_write_text(given.out.with_suffix(".md"), page(found))


if __name__ == "__main__":
    main()
