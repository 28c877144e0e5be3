import asyncio
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.config import GeneralizeParams
from routerr1.errors import DataError
from routerr1.evaluate.controls import BOUNDS
from routerr1.evaluate.generalize import generalize
from routerr1.evaluate.redrawn import redrawn
from routerr1.evaluate.results import EvaluationTable, Generalization, SeedTable
from routerr1.evaluate.rows import read_rows
from routerr1.evaluate.run import Evaluation
from routerr1.files import digest, read_json, write_json
from routerr1.report import html
from routerr1.report.glossary import label
from routerr1.report.outputs import write_evaluation, write_generalization
from routerr1.report.page import SIMULATION, Sources, read_sources, write_report
from routerr1.report.summary import cause_of
from routerr1.report.sweep import STALE, compare_swept, write_swept
from routerr1.report.training_gain import TITLE
from routerr1.report.trajectory_browser import browsable
from tests.evaluate.made import row
from tests.evaluation import drawing, evaluated, new_models

CHROMIUM = Path("/usr/bin/chromium")
LOG = """step,reward,em,format_valid,cost_usd,entropy,kl,share/Atlas,share/Penny,calls_1hop,calls_2hop,validation/em,note
0,-0.5,0.10,0.6,2e-5,1.2,0.0,0.5,0.5,0.4,0.6,,first
10,0.2,0.35,0.9,1.5e-5,0.8,0.01,0.6,0.4,0.8,1.2,0.30,
20,0.5,0.55,1.0,1.2e-5,0.5,0.02,0.7,0.3,1.0,1.9,0.52,
"""
TRAINED = {"best_step": 20, "start/em": 0.125, "validation/em": 0.5, "validation/format_valid": 1.0}


async def _play(stage, data: Path) -> None:
    found = await evaluated(stage)
    write_evaluation(data / "eval", found, stage.params)
    limits = GeneralizeParams(pool_seed=1007, added_models=2, max_questions=30)
    before = {policy.seed: policy for policy in stage.policies(stage.follower)}
    new = await new_models(stage) + redrawn(stage.pool, *drawing(stage.world), before, seed=3)
    rows, changes = await generalize(
        stage.policies(stage.policy), stage.pool, new, stage.test, stage.params, limits
    )
    write_generalization(data / "generalize", rows, changes, stage.params)
    played = [row for row in found.rows if row.router in ("policy", "closed_book")]
    swept = [
        replace(row, router="alpha=0" if row.router == "policy" else "alpha=0.9") for row in played
    ]
    table = compare_swept(
        swept, found.rows, stage.params, steps=3, restart=True,
        evaluation=digest(data / "eval" / "rows.parquet"),
    )  # fmt: skip
    write_swept(data / "sweep", swept, table)


@pytest.fixture(scope="module")
def data(stage, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    asyncio.run(_play(stage, folder))
    (folder / "train").mkdir()
    (folder / "train" / "log.csv").write_text(LOG)
    write_json(folder / "train" / "results.json", {"seed_1": TRAINED})
    write_report(
        folder / "report", read_sources(folder, simulated=True, facts={"preset": "embedded"})
    )
    return folder


def test_the_page_asks_nothing_of_any_other_file_or_host(data):
    page = (data / "report" / "index.html").read_text()
    assert "default-src 'none'" in page
    loads = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)|@import\s+(\S+)""", page)
    targets = [next(filter(None, load)) for load in loads]
    assert targets
    assert all(target.startswith("#") for target in targets)


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("policy", [True, False])
def test_the_page_head_follows_the_pool_and_the_policy(simulated, policy):
    page = html.render(
        [], {}, browsable([]), notice="Read this.", simulated=simulated, policy=policy, facts={}
    )
    assert "Read this." in page
    assert ("Simulated pool." in page, "Pool: simulated." in page) == (simulated, simulated)
    assert ("A trained policy answers" in page) == policy


def test_page_and_markdown_say_that_the_pool_is_simulated(data):
    assert SIMULATION in (data / "report" / "index.html").read_text()
    assert SIMULATION in (data / "report" / "report.md").read_text()


@pytest.fixture(scope="module")
def wide(stage, data, tmp_path_factory) -> Path:
    """Three training seeds, the third without calls, on two data sets."""
    folder = tmp_path_factory.mktemp("wide")
    rows = read_rows(data / "eval" / "rows.parquet")
    ids = sorted({row.question_id for row in rows})
    parted = [replace(r, dataset=("nq", "hotpotqa")[ids.index(r.question_id) % 2]) for r in rows]
    silent = {row.question_id: row for row in parted if row.router == "closed_book"}
    made = [replace(row, seed=seed) for seed in (1, 2) for row in parted]
    made += [
        replace(
            silent[row.question_id] if row.router == "policy" else row, router=row.router, seed=3
        )
        for row in parted
    ]
    write_evaluation(folder / "eval", Evaluation(made, {}), stage.params)
    (folder / "train").mkdir()
    columns = ["top_model_share", "no_call_rate", "call_entropy", "share/Atlas", "calls_2hop"]
    named = [f"{name}/{column}" for name in ("nq", "hotpotqa") for column in columns]
    lines = [",".join(["seed", "step", *named])]
    lines += [f"{seed},{step}" + ",0.5" * len(named) for seed in (1, 2) for step in (0, 10)]
    (folder / "train" / "seeds.csv").write_text("\n".join(lines) + "\n")
    write_report(folder / "report", read_sources(folder, simulated=True, facts={}))
    return folder


@pytest.mark.slow
def test_several_training_seeds_stand_side_by_side(data, wide):
    told = (wide / "report" / "report.md").read_text()
    assert "| Figure | seed 1 | seed 2 | seed 3 | all | sd |" in told
    assert "<th>seed 2</th>" in (wide / "report" / "index.html").read_text()
    assert "### Training seeds" not in (data / "report" / "report.md").read_text()
    # A third of the seeds never calls: the mean says a third, the worst seed all.
    policy = next(
        line for line in told.splitlines() if line.startswith("| Policy | nq | 100 (100)")
    )
    assert "| 33 (100) |" in policy


@pytest.mark.slow
def test_every_data_set_has_its_tables_in_page_and_markdown(data, wide):
    told = (wide / "report" / "report.md").read_text()
    assert "| Router | hotpotqa (n = 30) | nq (n = 30) | Macro-average | sd |" in told
    assert "### hotpotqa: at equal quality and cost" in told
    page = (wide / "report" / "index.html").read_text()
    assert 'id="data-sets"' in page
    assert "nq: at equal quality and cost" in page
    assert "EM by data set" in page
    assert 'id="data-sets"' not in (data / "report" / "index.html").read_text()


def test_page_and_markdown_compare_any_two_routers(data):
    table = EvaluationTable.read(data / "eval" / "table.json")
    names = [entry.router for entry in table.routers]
    square = f"| EM | {' | '.join(map(label, names))} |"
    assert square in (data / "report" / "report.md").read_text()
    page = (data / "report" / "index.html").read_text()
    # Every router against every other, both ways.
    assert page.count(", MDE ") == len(names) * (len(names) - 1)


def test_the_report_opens_with_what_a_decision_needs(data):
    text = (data / "report" / "report.md").read_text()
    first, *others = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "Summary"
    assert others[:3] == ["Models and topics", "Failures", "Routers"]
    summary = text.split("## Summary")[1].split("## Models")[0]
    # The scripted policy calls one model only.
    assert "- Models to keep: Goliath." in summary
    assert "Always calling the best model (" in summary
    assert "USD per 1,000 questions" in summary
    assert "Where it fails" in summary
    assert re.search(r"\| Goliath \|.*\| 100 \| keep \|", summary)
    assert re.search(r"\| Atlas \|.*\| 0 \| hardly used \|", summary)


def test_topics_and_failures_add_up(data):
    rows = [r for r in read_rows(data / "eval" / "rows.parquet") if r.router == "policy"]
    text = (data / "report" / "report.md").read_text()
    topics = text.split("## Models and topics")[1].split("## Failures")[0]
    assert "| Policy |" in topics
    assert all(f"| {name} |" in topics for name in ("Atlas", "Goliath", "Penny"))
    failures = text.split("## Failures")[1].split("### Examples")[0]
    lines = [line.split(" | ") for line in failures.splitlines() if line.startswith("| ")][1:]
    counts = [int(line[1]) for line in lines if line[1].isdigit()]
    assert sum(counts) == sum(row.em < 1 for row in rows)
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"format_valid": False, "called": []}, "broken format"),
        ({"called": []}, "no call"),
        ({"failures": 1}, "a call failed"),
        ({"judged_calls": 2, "best_calls": 1}, "not the best model"),
        ({"answer": None}, "no answer"),
        ({"judged_calls": 1, "best_calls": 1}, "wrong in spite of the best model"),
        ({}, "wrong after its calls"),
    ],
)
def test_the_cause_of_a_wrong_answer(given, cause):
    assert cause_of(row(em=0.0, **given)) == cause


def test_markdown_holds_of_perturbed_pools_what_the_page_holds(data):
    pools = Generalization.read(data / "generalize" / "pools.json")
    text = (data / "report" / "report.md").read_text()
    page = (data / "report" / "index.html").read_text()
    for pool in pools.pools:
        gap = f"{1000 * pool.difference['cost_usd'].mean:+.4f}"
        assert f"| {gap} [" in text
        assert gap in page
        # Another section shows the controls on redrawn pools.
        if pool.table and pool.pool != "redrawn":
            assert f"Pool “{pool.pool}” with controls" in text
            last = pool.table.routers[-1]
            assert f"| {label(last.router)} | {last.em.mean:.3f} [" in text
    assert "USD minus training pool" in text


@pytest.mark.slow
def test_page_and_markdown_show_what_training_added(data, tmp_path):
    text = (data / "report" / "report.md").read_text()
    page = (data / "report" / "index.html").read_text()
    assert f"## {TITLE}" in text
    assert f"<h2>{TITLE}</h2>" in page
    assert "| 1 | step 20 | 0.500 |" in text
    for name in ("policy_before_rl", "best_on_cards"):
        assert f"| {label(name)} | " in text
        assert f'<th scope="row">{label(name)}</th>' in page
        assert f"| {label(name)} | {name} | " in text  # and what it is
    assert "“redrawn”" not in text
    assert "“redrawn”" not in page
    nothing = replace(
        read_sources(data, simulated=True, facts={}), training={}, pools=None
    )  # the policy before reinforcement learning is not among the routers of this evaluation
    write_report(tmp_path, nothing)
    assert TITLE not in (tmp_path / "report.md").read_text()
    assert TITLE not in (tmp_path / "index.html").read_text()


def test_reply_time_does_not_include_the_policy(data):
    for name in ("index.html", "report.md"):
        assert "without the policy&#39;s time" in (data / "report" / name).read_text().replace(
            "without the policy's time", "without the policy&#39;s time"
        )
    assert "Prompt tokens |" in (data / "report" / "report.md").read_text()
    assert "max_concurrency of endpoint and pool" in (data / "report" / "report.md").read_text()


@pytest.mark.slow
def test_a_report_on_real_models_claims_no_simulation_and_another_oracle(data, tmp_path):
    write_report(tmp_path, read_sources(data, simulated=False, facts={}))
    for name in ("index.html", "report.md"):
        simulated, real = (data / "report" / name).read_text(), (tmp_path / name).read_text()
        assert "simulat" not in real.lower()
        # Only a simulation knows which candidate answers a single call right.
        assert "each call goes to the cheapest candidate" in simulated
        assert "each call goes to the cheapest candidate" not in real
        assert "the best fixed model for each question" in real


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.slow
def test_bounds_are_hollow_and_not_part_of_the_front(bound, data, tmp_path):
    table = EvaluationTable.read(data / "eval" / "table.json")
    routers = tuple(entry for entry in table.routers if entry.router in ("policy", "random"))
    knowing = table.router("oracle").model_copy(update={"router": bound})
    rows = [row for row in read_rows(data / "eval" / "rows.parquet") if row.router == "policy"]
    alone = Sources(
        table=table.model_copy(update={"routers": routers}), rows=rows, seeds=SeedTable(seeds=())
    )
    beside = replace(
        alone, table=table.model_copy(update={"routers": (*routers, knowing)}), simulated=True
    )
    write_report(tmp_path / "alone", alone)
    write_report(tmp_path / "beside", beside)

    def front(folder: str) -> str:
        text = (tmp_path / folder / "report.md").read_text()
        return text.split("At equal quality and cost")[1].split("## Calls")[0]

    assert front("alone") == front("beside")
    assert f"| {label(bound)} | {bound} | " in (tmp_path / "beside" / "report.md").read_text()
    drawn = (tmp_path / "beside" / "pareto.svg").read_text()
    hollow = re.findall(r"<use [^>]*fill-opacity: 0;", drawn)
    assert len(hollow) == 2  # the point, and its kind in the legend


@pytest.mark.slow
def test_same_sources_same_bytes(data, tmp_path):
    write_report(tmp_path, read_sources(data, simulated=True, facts={"preset": "embedded"}))
    for file in sorted((data / "report").iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_every_plot_is_well_formed_and_linked_from_the_markdown(data):
    linked = re.findall(r"\]\((\S+\.svg)\)", (data / "report" / "report.md").read_text())
    written = sorted(path.name for path in (data / "report").glob("*.svg"))
    assert sorted(linked) == written
    wanted = ("pareto", "differences", "calls", "pools", "train-calls", "train-hops", "sweep")
    assert {f"{name}.svg" for name in wanted} < set(written)
    for name in written:
        assert ET.parse(data / "report" / name).getroot().tag.endswith("svg")


def test_two_plots_of_a_page_share_no_element_id(data):
    page = (data / "report" / "index.html").read_text()
    # Matplotlib names groups alike in every plot (figure_1); only what is referred to must be unique.
    used = set(re.findall(r"url\(#([^)]+)\)", page)) | set(
        re.findall(r'xlink:href="#([^"]+)"', page)
    )
    for name in used:
        assert page.count(f'id="{name}"') == 1, name


def test_text_from_a_pool_cannot_leave_its_script_element(data):
    page = (data / "report" / "index.html").read_text()
    played = page.split('id="played">', 1)[1].split("</script>", 1)[0]
    assert "<" not in played


@pytest.mark.slow
def test_without_training_log_and_pools_the_page_leaves_them_out(data, tmp_path):
    only = tmp_path / "data"
    only.mkdir()
    (only / "eval").symlink_to(data / "eval")
    write_report(tmp_path / "report", read_sources(only, simulated=True, facts={}))
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="training"' not in page
    assert 'id="perturbed-pools"' not in page
    assert 'id="browser"' in page


@pytest.mark.slow
def test_a_sweep_beside_another_evaluation_is_called_stale(data, tmp_path):
    assert STALE not in (data / "report" / "index.html").read_text()
    only = tmp_path / "data"
    (only / "sweep").mkdir(parents=True)
    (only / "eval").symlink_to(data / "eval")
    other = read_json(data / "sweep" / "sweep.json") | {"evaluation": "of another one"}
    write_json(only / "sweep" / "sweep.json", other)
    write_report(tmp_path / "report", read_sources(only, simulated=True, facts={}))
    assert STALE in (tmp_path / "report" / "index.html").read_text()
    assert STALE in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_several_data_sets_have_collapse_plots_of_their_own(wide):
    drawn = {path.stem for path in (wide / "report").glob("*.svg")}
    for name in ("nq", "hotpotqa"):
        plots = ("top_model_share", "calls", "hops")
        assert {f"pareto-{name}", *(f"train-{plot}-{name}" for plot in plots)} < drawn
    assert "train-call_entropy-by-set" in drawn


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"eval/table\.json"):
        read_sources(tmp_path, simulated=True, facts={})


@pytest.fixture
def browser():
    """Headless Chromium; waits for what is to come, on a busy machine too."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        yield started
        started.close()


def opened(browser, file: Path, width: int, scheme: str):
    """A page of the report, and what went wrong on it or was asked of the network."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.set_default_timeout(120_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: problems.append(request.url) if "file:" not in request.url else None,
    )
    page.goto(file.as_uri())
    return page, problems


needs_browser = pytest.mark.skipif(
    not CHROMIUM.exists(), reason="needs /usr/bin/chromium (apt-get install chromium)"
)


@pytest.mark.slow
@needs_browser
@pytest.mark.slow
def test_filters_and_search_work_in_a_real_browser(data, browser):
    from playwright.sync_api import expect

    mine = [row for row in read_rows(data / "eval" / "rows.parquet") if row.router == "policy"]
    right = sum(row.em == 1.0 for row in mine)
    once = sum(row.calls == 1 for row in mine)
    assert 0 < right < 60
    assert 0 < once < 60
    page, problems = opened(browser, data / "report" / "index.html", 390, "dark")
    played, open_ones = page.locator("details.played"), page.locator("details.played[open]")

    def shows(count: int | str) -> None:
        expect(page.locator("#found")).to_have_text(re.compile(f"^{count} of "))

    shows(60)  # the policy's questions, chosen at the start
    expect(page.locator("#seed")).to_be_hidden()  # there is one
    page.select_option("#right", "right")
    shows(right)
    page.select_option("#right", "wrong")
    shows(60 - right)
    expect(page.locator(".badge.right")).to_have_count(0)
    page.select_option("#right", "")
    page.select_option("#count", "1")
    shows(once)
    page.select_option("#count", "2")
    shows(60 - once)
    page.select_option("#count", "")
    page.select_option("#router", "fixed/Atlas")
    page.select_option("#model", "Penny")
    shows(0)  # a router fixed to Atlas calls no other
    page.select_option("#model", "Atlas")
    shows(60)
    page.fill("#search", "capital")
    shows("[1-5]?[0-9]")
    played.first.click()
    expect(open_ones.locator(".call").first).to_be_visible()
    expect(open_ones.first).to_contain_text("capital")
    page.fill("#search", "")
    expect(played).to_have_count(25)
    page.click("#more")
    expect(played).to_have_count(50)
    page.select_option("#model", "")
    page.select_option("#router", "closed_book")
    played.first.click()
    # A failed call shows price and time like any other.
    expect(open_ones.first).to_contain_text(
        re.compile(r"failed: budget, 0\.00 s, 0 reply tokens, \$0")
    )
    assert problems == []


@pytest.mark.slow
@needs_browser
@pytest.mark.slow
def test_the_page_reads_in_light_and_dark_and_on_a_phone(wide, browser, tmp_path):
    from playwright.sync_api import expect

    backgrounds = {}
    for name, width, scheme in (
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("phone", 390, "light"),
    ):
        page, problems = opened(browser, wide / "report" / "index.html", width, scheme)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        # Nothing pushes the page sideways, not even the square of all routers.
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        page.select_option("#router", "policy")
        page.select_option("#seed", "3")
        expect(page.locator("#found")).to_have_text(re.compile("^60 of "))
        expect(page.locator("details.played .facts").first).to_contain_text("Policy, seed 3")
        backgrounds[name] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.screenshot(path=str(tmp_path / f"{name}.png"), full_page=True)
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert problems == []
        page.close()
    assert backgrounds["light"] == backgrounds["phone"] != backgrounds["dark"]
