"""The stage profile, as far as it differs from `routerr1.pool.profile`."""

from pathlib import Path

import pytest

from routerr1.config import Params
from routerr1.errors import ConfigError
from routerr1.stages.profile import profile


def test_nothing_is_paid_where_the_warm_start_has_nothing_to_learn_from(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # without questions: none is read
    own = params.replace(dataset=params.dataset.replace(source="imported"))
    own = own.replace(prompt=own.prompt.replace(template="full"))
    with pytest.raises(ConfigError, match=r"written for prompt\.template compact; .* to none"):
        profile(own)
    routers = own.replace(model=own.model.replace(init="none"))
    assert not routers.needs_demonstrations
    pretrained = own.model.replace(init="weights")
    steps = own.warmstart.replace(steps=0)
    assert not own.replace(model=pretrained, warmstart=steps).needs_demonstrations
    assert own.replace(model=pretrained).needs_demonstrations
