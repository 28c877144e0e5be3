import pickle

from routerr1.rollout.generate import ScriptedGenerator
from routerr1.rollout.lazy import Lazy, LazyGenerator


def test_a_value_is_made_once_and_only_if_somebody_asks():
    made = []
    lazy = Lazy(lambda: made.append("x") or len(made))
    assert made == []
    assert (lazy(), lazy(), made) == (1, 1, ["x"])


def test_what_travels_is_made_before_and_not_again_there():
    made = []
    lazy = Lazy(lambda: made.append("x") or len(made))
    there = pickle.loads(pickle.dumps({"one": lazy, "again": lazy}))
    assert (there["one"](), there["again"](), lazy(), made) == (1, 1, 1, ["x"])


async def test_a_policy_is_loaded_when_it_is_first_played():
    loaded = []
    lazy = LazyGenerator(lambda: loaded.append("x") or ScriptedGenerator(["said"]))
    assert loaded == []
    for _ in range(2):
        said = await lazy.start("?", seed=0).generate(max_new_tokens=4, temperature=0.0)
        assert said.text == "said"
    assert loaded == ["x"]
