import asyncio
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from routerr1.config import GeneralizeParams
from routerr1.errors import DataError
from routerr1.evaluate.generalize import generalize
from routerr1.evaluate.outputs import write_evaluation, write_generalization
from routerr1.evaluate.rows import read_rows
from routerr1.evaluate.run import Evaluation
from routerr1.evaluate.sweep import compare_swept, write_swept
from routerr1.files import digest, read_json, write_json
from routerr1.report import SIMULATION, STALE, Sources, draw, read_sources, write_report
from tests.evaluate.conftest import evaluated, new_models

CHROMIUM = Path("/usr/bin/chromium")
LOG = """step,reward,em,formed,cost_usd,entropy,kl,share/Atlas,share/Penny,calls_1hop,calls_2hop,validation/em,note
0,-0.5,0.10,0.6,2e-5,1.2,0.0,0.5,0.5,0.4,0.6,,first
10,0.2,0.35,0.9,1.5e-5,0.8,0.01,0.6,0.4,0.8,1.2,0.30,
20,0.5,0.55,1.0,1.2e-5,0.5,0.02,0.7,0.3,1.0,1.9,0.52,
"""


async def _play(stage, data: Path) -> None:
    common = stage.settings()
    found = await evaluated(stage)
    write_evaluation(data / "eval", found, stage.params)
    limits = GeneralizeParams(pool_seed=1007, added_models=2, max_questions=30)
    rows, changes = await generalize(
        {1: stage.policy}, stage.pool, await new_models(stage), stage.test, limits=limits, **common
    )
    write_generalization(data / "generalize", rows, changes, stage.params)
    played = [row for row in found.rows if row.router in ("policy", "no_call")]
    swept = [
        replace(row, router="alpha=0" if row.router == "policy" else "alpha=0.9") for row in played
    ]
    table = compare_swept(swept, found.rows, stage.params)
    about = {"steps": 3, "restart": True, "evaluation": digest(data / "eval" / "rows.parquet")}
    write_swept(data / "sweep", swept, table | about)


@pytest.fixture(scope="module")
def data(stage, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    asyncio.run(_play(stage, folder))
    (folder / "train").mkdir()
    (folder / "train" / "log.csv").write_text(LOG)
    write_report(
        folder / "report", read_sources(folder, simulated=True, facts={"profile": "embedded"})
    )
    return folder


def test_the_page_asks_nothing_of_any_other_file_or_host(data):
    page = (data / "report" / "index.html").read_text()
    assert "default-src 'none'" in page
    loads = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)|@import\s+(\S+)""", page)
    targets = [next(filter(None, load)) for load in loads]
    assert targets
    assert all(target.startswith("#") for target in targets)


def test_page_and_markdown_say_that_the_pool_is_simulated(data):
    assert SIMULATION in (data / "report" / "index.html").read_text()
    assert SIMULATION in (data / "report" / "report.md").read_text()


def test_several_training_seeds_stand_side_by_side(stage, data, tmp_path):
    rows = [r for r in read_rows(data / "eval" / "rows.parquet") if r.pool == "training"]
    both = [*rows, *(replace(row, seed=2) for row in rows)]
    write_evaluation(tmp_path / "eval", Evaluation(both, {}), stage.params)
    write_report(tmp_path / "report", read_sources(tmp_path, simulated=True, facts={}))
    assert "| | seed 1 | seed 2 | all |" in (tmp_path / "report" / "report.md").read_text()
    assert "<th>seed 2</th>" in (tmp_path / "report" / "index.html").read_text()
    assert "## Training seeds" not in (data / "report" / "report.md").read_text()


def test_a_report_on_real_models_claims_no_simulation(data, tmp_path):
    write_report(tmp_path, read_sources(data, simulated=False, facts={}))
    assert "simulat" not in (tmp_path / "index.html").read_text().lower()
    assert "simulat" not in (tmp_path / "report.md").read_text().lower()


def test_same_sources_same_bytes(data, tmp_path):
    write_report(tmp_path, read_sources(data, simulated=True, facts={"profile": "embedded"}))
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


def test_without_training_log_and_pools_the_page_leaves_them_out(data, tmp_path):
    only = tmp_path / "data"
    only.mkdir()
    (only / "eval").symlink_to(data / "eval")
    write_report(tmp_path / "report", read_sources(only, simulated=True, facts={}))
    page = (tmp_path / "report" / "index.html").read_text()
    assert 'id="training"' not in page
    assert 'id="pools"' not in page
    assert 'id="browser"' in page


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


def test_several_data_sets_have_collapse_plots_of_their_own(data):
    rows = read_rows(data / "eval" / "rows.parquet")
    ids = sorted({row.question_id for row in rows})
    parted = [
        replace(row, dataset=("nq", "hotpotqa")[ids.index(row.question_id) % 2]) for row in rows
    ]
    table = read_json(data / "eval" / "table.json") | {"datasets": ["nq", "hotpotqa"]}
    columns = ["top_model_share", "no_call_rate", "call_entropy", "share/Atlas", "calls_2hop"]
    log = [
        {"step": str(step), **{f"{name}/{c}": "0.5" for name in table["datasets"] for c in columns}}
        for step in (0, 10)
    ]
    drawn = set(draw(Sources(table=table, rows=parted, log=log)))
    for name in table["datasets"]:
        plots = ("collapse", "calls", "hops")
        assert {f"pareto-{name}", *(f"train-{plot}-{name}" for plot in plots)} < drawn
    assert "train-call-entropy-by-set" in drawn


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"eval/table\.json"):
        read_sources(tmp_path, simulated=True, facts={})


@pytest.mark.slow
@pytest.mark.skipif(
    not CHROMIUM.exists(), reason="needs /usr/bin/chromium (apt-get install chromium)"
)
def test_filters_and_search_work_in_a_real_browser(data, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    mine = [row for row in read_rows(data / "eval" / "rows.parquet") if row.router == "policy"]
    right = sum(row.em == 1.0 for row in mine)
    once = sum(row.calls == 1 for row in mine)
    assert 0 < right < 60
    assert 0 < once < 60
    expect.set_options(timeout=120_000)  # it waits for what is to come, on a busy machine too
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"], timeout=120_000
        )
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.set_default_timeout(120_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: problems.append(request.url) if "file:" not in request.url else None,
        )
        page.goto((data / "report" / "index.html").as_uri())
        played, opened = page.locator("details.played"), page.locator("details[open]")

        def shows(count: int | str) -> None:
            expect(page.locator("#found")).to_have_text(re.compile(f"^{count} of "))

        shows(60)  # the policy's questions, chosen at the start
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
        page.select_option("#router", "forced/Atlas")
        page.select_option("#model", "Penny")
        shows(0)  # who is forced to Atlas calls nobody else
        page.select_option("#model", "Atlas")
        shows(60)
        page.fill("#search", "capital")
        shows("[1-5]?[0-9]")
        played.first.click()
        expect(opened.locator(".call").first).to_be_visible()
        expect(opened.first).to_contain_text("capital")
        page.fill("#search", "")
        expect(played).to_have_count(25)
        page.click("#more")
        expect(played).to_have_count(50)
        for width in (390, 1280):  # nothing pushes the page sideways
            page.set_viewport_size({"width": width, "height": 844})
            page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=str(tmp_path / "page.png"))
        assert (tmp_path / "page.png").stat().st_size > 10_000
        assert problems == []
        browser.close()
