"""Values are set in params.yaml as a person would set them."""

from pathlib import Path

import pytest

from routerr1.errors import ConfigError
from routerr1.flows.params import set_values

pytestmark = pytest.mark.usefixtures("chain")
PARAMS, CI = Path("params.yaml"), Path("presets/ci.yaml")


def test_a_value_is_written_where_it_takes_effect_and_nothing_else_is_touched() -> None:
    before = PARAMS.read_text()
    assert set_values(PARAMS, {}) == []
    assert set_values(PARAMS, {"preset": "simulated", "reward.cost_weight": 0.0}) == []
    assert PARAMS.read_text() == before
    wanted = {"preset": "ci", "reward.cost_weight": 0.5}
    assert set_values(PARAMS, wanted) == ["preset: ci", "reward.cost_weight: 0.5"]
    after = PARAMS.read_text().splitlines()
    changed = [
        (old, new) for old, new in zip(before.splitlines(), after, strict=True) if old != new
    ]
    assert len(changed) == 2  # comments and layout of all other lines stay
    CI.write_text("reward: {cost_weight: 0.1}\n")
    set_values(PARAMS, {"reward.cost_weight": 0.7})
    assert "cost_weight: 0.7" in CI.read_text()


def test_parameters_that_could_not_be_read_are_not_written() -> None:
    before = PARAMS.read_text(), CI.read_text()
    with pytest.raises(ConfigError, match=r"params\.yaml: preset 'typo' has no file"):
        set_values(PARAMS, {"preset": "typo", "reward.cost_weight": 0.5})
    with pytest.raises(ConfigError, match=r"presets/ci\.yaml: train\.steps: .* greater than"):
        set_values(PARAMS, {"preset": "ci", "reward.cost_weight": 0.5, "train.steps": -1})
    with pytest.raises(ConfigError, match=r"params\.yaml: holds no value at reward\.alpha"):
        set_values(PARAMS, {"reward.alpha": 0.5})
    assert (PARAMS.read_text(), CI.read_text()) == before
