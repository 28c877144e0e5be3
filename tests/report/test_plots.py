import re

import pytest

from routerr1.report import plots

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
