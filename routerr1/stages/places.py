"""Where stages read and write, relative to the repository's root, as in dvc.yaml.

Working files that must survive a kill lie under runs/, outside of DVC's outputs, which DVC deletes before it
runs a stage.
"""

from pathlib import Path

QUESTIONS = Path("data/questions")
CHECKS = Path("data/checks")
POOL = Path("data/pool")
WARMSTART = Path("models/warmstart")
POLICY = Path("models/policy")
OTHER_SEEDS = Path("models/seeds")
TRAINING = Path("data/train")
RUN_FILE = TRAINING / "run.json"
EVALUATION = Path("data/eval")
GENERALIZATION = Path("data/generalize")
REPORT = Path("data/report")
RUNS = Path("runs")
DATA_DOCS = RUNS / "data-docs"  # pages that name the time at which they were made
TRAIN_SECONDS = RUNS / "train/seconds.csv"
WARM_STARTED = RUNS / "warmstart"  # seeds that are done, until all are
PROFILED = RUNS / "profile"  # calls that profiling has made; they answer if the stage is run again
CALLS = RUNS / "calls"  # paid calls of an evaluation that is under way; see `keep_calls`
