"""The stages of dvc.yaml: each reads params and the outputs before it, builds the parts, calls, writes.

No arithmetic here. What is where:

    places          the files and folders that stages read and write
    parts           what stages are built from: questions, cards, pools, policies, fingerprints
    preparing       the stages dataset, checks and profile
    warmstarting    warmstart
    training        train, and the setting of any training run
    evaluating      evaluate, with its baselines, and evaluate_replay, which is no stage
    generalizing    generalize
    reporting       report

The package gives the stages, and what the rest of the project uses beside them, as names of its own.
"""

from routerr1.stages.evaluating import evaluate, evaluate_replay
from routerr1.stages.generalizing import generalize
from routerr1.stages.parts import (
    evaluation_fingerprint,
    fingerprint_parts,
    keep_calls,
    load_checkpoint,
    load_policies,
    load_policy,
    open_pool,
    questions_of,
    read_cards,
    renderer,
)
from routerr1.stages.places import (
    CALLS,
    CHECKS,
    EVALUATION,
    GENERALIZATION,
    OTHER_SEEDS,
    POLICY,
    POOL,
    PROFILED,
    QUESTIONS,
    REPORT,
    RUN_FILE,
    RUNS,
    TRAINING,
    WARM_STARTED,
    WARMSTART,
)
from routerr1.stages.preparing import checks, dataset, profile
from routerr1.stages.reporting import report
from routerr1.stages.training import train, train_setting
from routerr1.stages.warmstarting import warmstart

__all__ = [
    "CALLS",
    "CHECKS",
    "EVALUATION",
    "GENERALIZATION",
    "OTHER_SEEDS",
    "POLICY",
    "POOL",
    "PROFILED",
    "QUESTIONS",
    "REPORT",
    "RUNS",
    "RUN_FILE",
    "TRAINING",
    "WARMSTART",
    "WARM_STARTED",
    "checks",
    "dataset",
    "evaluate",
    "evaluate_replay",
    "evaluation_fingerprint",
    "fingerprint_parts",
    "generalize",
    "keep_calls",
    "load_checkpoint",
    "load_policies",
    "load_policy",
    "open_pool",
    "profile",
    "questions_of",
    "read_cards",
    "renderer",
    "report",
    "train",
    "train_setting",
    "warmstart",
]
