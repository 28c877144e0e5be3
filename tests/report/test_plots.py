import random
import re
from itertools import combinations

import pytest
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from routerr1.evaluate.results import Estimate, Quality
from routerr1.report import plots
from routerr1.report.glossary import label

LONG = [f"meta-llama/Llama-3.{place}-{place}0B-Instruct" for place in range(9)]
SHORT = ["Atlas", "Curie", "Goliath", "Mint", "Penny", "Retriever", "Scout"]


@pytest.mark.parametrize("names", [LONG, SHORT])
def test_no_name_under_a_plot_is_cut(names):
    share = {"baseline/policy_before_rl": dict.fromkeys(names, 1 / len(names))}
    lines = {name: [{0: 0.1, 1: 0.2}] for name in names}
    for svg in (
        plots.shares("calls", "Share of calls", share),
        plots.curves("train-calls", "Share of calls", lines),
    ):
        width = float(re.search(r'viewBox="0 0 (\S+)', svg)[1])
        written = re.findall(r'text-anchor: start[^>]* x="([^"]+)"[^>]*>([^<]*)</text>', svg)
        begins = {text: float(x) for x, text in written if text in names}
        assert set(begins) == set(names)
        for text, begin in begins.items():
            # On average a letter is more than half as wide as it is high, and these are 8.5 high.
            assert 0 < begin < begin + 0.55 * 8.5 * len(text) <= width, text


SWEPT = [f"alpha={weight}" for weight in (0, 0.3, 0.6, 0.9)]
LANDMARKS = ("policy", "oracle", "best_single", "baseline/knn")


def quality(router: str, cost_usd: float, em: float) -> Quality:
    cost = Estimate(mean=cost_usd, low=0.9 * cost_usd, high=1.1 * cost_usd)
    right = Estimate(mean=em, low=max(0.0, em - 0.06), high=min(1.0, em + 0.06))
    return Quality(router=router, em=right, f1=right, cost_usd=cost, per_seed={})


def crowd(seed: int, *names: str) -> list[Quality]:
    """Forty routers in a cloud, and `names`."""
    rng = random.Random(seed)
    others = [f"fixed/a-model-with-a-long-name-{place}" for place in range(40 - len(names))]
    return [quality(name, rng.uniform(0, 2e-5), rng.uniform(0, 0.9)) for name in (*names, *others)]


def boxes(svg: str) -> dict[str, Bbox]:
    """Where the names beside points are, in points; they are the only text of size 8."""
    found = {}
    for style, x, y, text in re.findall(
        r'<text style="font-size: 8px;([^"]*)" x="([^"]+)" y="([^"]+)"[^>]*>([^<]*)</text>', svg
    ):
        box = TextPath((0, 0), text, size=8).get_extents()
        anchor = re.search(r"text-anchor: (\w+)", style)
        moved = {"middle": 0.5, "end": 1.0}.get(anchor[1] if anchor else "", 0.0) * box.width
        found[text] = box.translated(float(x) - moved, -float(y))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ours", [["policy"], SWEPT])
def test_of_many_routers_the_named_ones_do_not_cover_each_other(seed, ours):
    routers = crowd(seed, *dict.fromkeys([*LANDMARKS, *ours]))
    drawn = boxes(plots.pareto("pareto", routers, ours))
    assert 4 < len(drawn) < 18
    for name in (*LANDMARKS, *ours):
        assert any(label(name) in text for text in drawn), name
    for (one, first), (other, second) in combinations(drawn.items(), 2):
        assert not first.overlaps(second), (one, other)


def test_a_point_without_a_name_beside_it_has_one_at_the_pointer():
    routers = [quality("fixed/<b>&", 1e-5, 0.01), *crowd(0, *LANDMARKS)]
    svg = plots.pareto("pareto", routers, ["policy"])
    assert "Always &lt;b&gt;&amp;" not in " ".join(boxes(svg))
    assert svg.count("<title>Always &lt;b&gt;&amp;</title>") == 1
    assert svg.count("<title>") == len(routers)
    assert "<b>" not in svg


def test_of_few_routers_each_has_its_name():
    routers = [quality(f"fixed/{name}", 1e-6 * n, 0.1 * n) for n, name in enumerate(SHORT, start=1)]
    assert set(boxes(plots.pareto("pareto", routers, []))) == {f"Always {name}" for name in SHORT}


def test_the_best_and_the_front_have_their_names():
    crowded = crowd(0, *LANDMARKS)
    cheap = quality("fixed/Penny", 1e-8, 0.2)
    best = quality("fixed/Atlas", 3e-5, 0.99)
    drawn = boxes(plots.pareto("pareto", [*crowded, cheap, best], ["policy"]))
    assert {"Always Penny", "Always Atlas"} < set(drawn)
