"""params.yaml is read once, typed, and a mistake in it names file and key."""

from pathlib import Path

import pytest
import yaml

from routerr1.config import Params, load_params
from routerr1.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "presets").mkdir()
    for name in ("embedded", "ci"):
        text = (ROOT / "presets" / f"{name}.yaml").read_text()
        (tmp_path / "presets" / f"{name}.yaml").write_text(text)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path / "params.yaml"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("preset", sorted(p.stem for p in (ROOT / "presets").glob("*.yaml")))
def test_every_preset_that_ships_is_valid(tmp_path: Path, preset: str) -> None:
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load((ROOT / "params.yaml").read_text()), "preset": preset})
    )
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    assert isinstance(load_params(tmp_path / "params.yaml"), Params)


def test_a_preset_lays_its_values_over_the_others(written: Path) -> None:
    change(written, "preset: embedded", "preset: ci")
    params = load_params(written)
    assert params.model.hidden_size == 32
    assert params.model.layers == load_params(ROOT / "params.yaml").model.layers


def test_a_misspelt_key_names_the_nearest_known_one(written: Path) -> None:
    change(written, "  learning_rate: 3.0e-3", "  lerning_rate: 3.0e-3")
    with pytest.raises(
        ConfigError, match=r"params.yaml: unknown key train.lerning_rate.*train.learning_rate"
    ):
        load_params(written)


@pytest.mark.parametrize(
    ("overlay", "wanted"),
    [
        ("train: {lora: {rnak: 4, alpha: 8}}", "train.lora.rnak; did you mean train.lora.rank"),
        ("train: {vllm: {mod: server}}", "train.vllm.mod; did you mean train.vllm.mode"),
        ("pool: {budget: {run: 1}}", "pool.budget.run; did you mean pool.budget.run_usd"),
        ("dataset: {benchmarks: {sets: {nq: {tran: {source: train, rows: 1}}}}}",
         "dataset.benchmarks.sets.nq.tran; did you mean dataset.benchmarks.sets.nq.train"),
        ("dataset: {benchmarks: {sets: {nq: {train: {source: train, row: 1}}}}}",
         "dataset.benchmarks.sets.nq.train.row; did you mean dataset.benchmarks.sets.nq.train.rows"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_named_at_any_depth(written: Path, overlay: str, wanted: str) -> None:
    (written.parent / "presets/embedded.yaml").write_text(overlay)
    with pytest.raises(ConfigError, match=rf"embedded.yaml: unknown key {wanted}\?$"):
        load_params(written)


@pytest.mark.parametrize(
    ("hidden", "heads"), [(65, 5), (64, 3), (36, 4), (16, 16), (64, 1), (66, 4)]
)
def test_sizes_that_make_no_model_are_refused(written: Path, hidden: int, heads: int) -> None:
    (written.parent / "presets/embedded.yaml").write_text(
        f"model: {{hidden_size: {hidden}, heads: {heads}}}"
    )
    with pytest.raises(
        ConfigError, match=r"embedded\.yaml: model.*(even size|greater than or equal to 2)"
    ):
        load_params(written)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", ".inf"), ("warmstart.learning_rate", ".nan"), ("gate.margin_em", ".inf"),
        ("watch.max_latency_ratio", ".inf"), ("rollout.temperature", ".inf"), ("pool.budget", "{run_usd: .nan}"),
    ],
)  # fmt: skip
def test_numbers_are_finite(written: Path, key: str, value: str) -> None:
    section, _, name = key.partition(".")
    (written.parent / "presets/embedded.yaml").write_text(f"{section}: {{{name}: {value}}}")
    with pytest.raises(ConfigError, match=rf"embedded\.yaml: {key}.*finite number"):
        load_params(written)


@pytest.mark.parametrize(
    ("overlay", "wanted"),
    [
        ("dataset: {embedded: {test_share: 0.9, validation_share: 0.5}}",
         "dataset.embedded: test_share and validation_share leave nothing"),
        ("train: {rollouts_per_pass: 5}", r"train: 192 rollouts a step do not part into passes of 5"),
        ("prompt: {template: file}", "prompt: template file needs a file"),
        ("prompt: {template: full, file: prompts/a.txt}", "prompt: template file needs a file"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused(
    written: Path, overlay: str, wanted: str
) -> None:
    (written.parent / "presets/embedded.yaml").write_text(overlay)
    with pytest.raises(ConfigError, match=rf"embedded\.yaml: {wanted}"):
        load_params(written)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("  cost_weight: 0.0 ", "  cost_weight: 1.5 ", r"params.yaml: reward.cost_weight: .*less than or equal to 1"),
        ("seeds: [1]", "seeds: [1, 1]", "params.yaml: seeds must differ"),
        ("preset: embedded", "profile: ci", r"params\.yaml: profile is now preset; rename the key"),
        ("  patience:", "  initial_cost_weight: null\n  patience:",
         r"params\.yaml: train\.initial_cost_weight is gone: reward\.cost_weight holds .*; delete the key"),
        ("  redraw:", "  hide: 0.3\n  redraw:", r"params\.yaml: pool\.hide is gone: .*; delete the key"),
        (
            "knn_multi_turn", "knn_star",
            r"params\.yaml: baselines\.include: knn_star is now knn_multi_turn; rename it",
        ),
        (
            "knn_multi_turn", "knn_multi_trun",
            r"baselines\.include: there is no baseline 'knn_multi_trun'; did you mean knn_multi_turn\?",
        ),
        ("preset: embedded", "preset: nowhere", r"preset 'nowhere' has no file .*\(there are: ci, embedded\)"),
        ("seeds: [1]", "seeds: [1", r"params.yaml, line \d+: is not valid YAML"),
    ],
)  # fmt: skip
def test_a_bad_value_names_file_and_key(written: Path, old: str, new: str, wanted: str) -> None:
    change(written, old, new)
    with pytest.raises(ConfigError, match=wanted):
        load_params(written)


def test_a_bad_value_of_a_profile_names_the_profile(written: Path) -> None:
    change(written, "preset: embedded", "preset: ci")
    (written.parent / "presets/ci.yaml").write_text("train: {steps: -1}\n")
    with pytest.raises(ConfigError, match=r"ci.yaml: train.steps: "):
        load_params(written)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml: not found, .*`routerr1 init FOLDER`"):
        load_params(tmp_path / "params.yaml")


def test_a_recording_has_one_writer(written: Path) -> None:
    change(written, "kind: recorded ", "kind: simulated ")
    change(written, "calls: live ", "calls: record ")
    change(written, "store: pools/laptop/replies.jsonl.gz ", "store: runs/calls.jsonl ")
    load_params(written)
    change(written, "executor: local ", "executor: ray ")
    with pytest.raises(
        ConfigError, match=r"params\.yaml: evaluate\.executor ray asks a simulated pool in"
    ):
        load_params(written)


def test_a_version_to_try_is_a_number_or_an_alias(written: Path) -> None:
    preset = written.parent / "presets/embedded.yaml"
    section = {
        "shadow": {"version": "challenger", "share": 0.1, "budget_usd": 5},
        "canary": {"version": 2, "share": 0.05},
    }
    overlay = yaml.safe_load(preset.read_text()) or {}
    preset.write_text(yaml.safe_dump({**overlay, "serve": section}))
    serve = load_params(written).serve
    assert serve.shadow is not None
    assert serve.canary is not None
    assert (serve.shadow.version, serve.canary.version) == ("challenger", "2")
