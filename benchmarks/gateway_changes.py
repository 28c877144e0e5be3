"""Two gateways under load while champions change, candidates fail, and one gateway is killed. Prints JSON.

    python -m benchmarks.gateway_changes [--requests 2000] [--clients 24] [--out FILE]

The registry is a real one with five versions: four promotions and two rollbacks happen under way. One try
of ten fails at the model servers. One gateway is ended by `kill -9` after three changes. The policy is a
script that says its version. The checks are those of tests/serve/test_gateway_kill.py; the first that fails
ends the run. Both gateways share a budget, which ends before the requests do.
"""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from pathlib import Path

from benchmarks import shared
from routerr1.config import load_params
from routerr1.data.embedded import build_world, questions
from routerr1.simulation.candidates import default_candidates
from routerr1.simulation.facts import known_facts
from routerr1.simulation.pool import SimulatedPool
from tests.chain import make_chain
from tests.serve.changes import FAULTS, KILLED_AFTER, PATH, play

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run once, check, and print the figures."""
    parser = shared.parser(__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="the least number of them")
    parser.add_argument("--clients", type=int, default=24, help="that ask at once")
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    embedded = load_params(ROOT / "params.yaml").dataset
    world = build_world(embedded.embedded)
    rows = questions(world, embedded.embedded, embedded.seed)
    pool = SimulatedPool(default_candidates(), known_facts(world), seed=7)
    asked = [row.question for row in rows if row.hops == 1][:500]
    folder = Path(tempfile.mkdtemp(prefix="gateways-"))
    try:
        with contextlib.chdir(folder):
            registry = make_chain(folder)
            outcome = asyncio.run(
                play(registry, pool, asked, requests=options.requests, clients=options.clients)
            )
    finally:
        shutil.rmtree(folder)
    outcome.check(pool)
    figures = {
        "machine": shared.machine(),
        "changes": list(PATH),
        "killed_after_change": KILLED_AFTER,
        "faulty_tries": FAULTS.total,
        "clients": options.clients,
        **outcome.figures(),
    }
    shared.report(figures, options.out)


if __name__ == "__main__":
    main()
