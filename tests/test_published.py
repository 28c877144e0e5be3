"""A published checkpoint (a Qwen2 with a byte-level tokenizer and a chat template) as the policy of `ask` and evaluate.

The weights are random; the folder is what the hub holds: no manifest of ours, end token other than padding.
"""

from pathlib import Path

import pytest
import yaml

from routerr1 import protocol
from routerr1.cli.ask import ask_once
from routerr1.config import Params, load_params
from routerr1.errors import ConfigError
from routerr1.evaluate.rows import read_rows
from routerr1.lineage import PATHS
from routerr1.prompt import PUBLISHED, renderer
from routerr1.simulation.pool import SimulatedPool
from routerr1.stages.dataset import dataset
from routerr1.stages.evaluate import evaluate
from routerr1.stages.profile import profile
from routerr1.stages.train import train
from routerr1.stages.warmstart import warmstart
from routerr1.types import Ask, Question
from routerr1.workspace import Workspace
from tests.published import make_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("hub") / "Router-R1-Qwen2.5")


@pytest.fixture
def published(mlflow_store: Path, checkpoint: Path) -> Params:
    """The published profile, on embedded questions and the simulated pool in place of hub and network."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    overlay = yaml.safe_load((ROOT / "presets/published.yaml").read_text())
    ci = yaml.safe_load((ROOT / "presets/ci.yaml").read_text())
    values["dataset"]["embedded"] |= ci["dataset"]["embedded"]
    values["pool"] |= ci["pool"]
    values |= {"profile_pool": {"split": "train", "probes": 6, "seed": 1}, "preset": "here"}
    del overlay["dataset"], overlay["pool"], overlay["generalize"]
    overlay["model"]["init"] = str(checkpoint)
    prompt = mlflow_store / overlay["prompt"]["file"]
    prompt.parent.mkdir()
    prompt.write_text("\nUse one of [{names}]:\n{cards}\nQuestion: {question}\n\n")
    overlay["rollout"]["max_new_tokens"] = 8
    overlay["train"]["validation_questions"] = 2
    overlay["evaluate"] = {"max_questions": 2, "bootstrap": 100}
    (mlflow_store / "presets").mkdir()
    (mlflow_store / "presets/here.yaml").write_text(yaml.safe_dump(overlay))
    (mlflow_store / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(mlflow_store / "params.yaml")


def test_a_published_checkpoint_is_asked_and_evaluated_as_it_is(
    published: Params, checkpoint: Path
) -> None:
    dataset(published)
    profile(published)
    asked = ask_once("Who?", str(checkpoint), published, seed=0, temperature=1.0)
    shown = Workspace(published).load_unchecked(checkpoint).tokenizer.decode(asked.prompt_ids)
    assert shown.startswith("<|im_start|>user\n\nUse one of [Goliath, Penny, ")
    assert shown.endswith("Question: Who?\n\n<|im_end|>\n<|im_start|>assistant\n")
    warmstart(published)
    train(published)
    evaluate(published)
    assert {row.router for row in read_rows(PATHS.rows)} >= {"policy"}
    weights = "model.safetensors"
    assert (PATHS.policy / weights).read_bytes() == (checkpoint / weights).read_bytes()
    Workspace(published).load(PATHS.policy)


def test_a_prompt_that_is_not_there_stops_the_chain_before_anything_is_paid(
    published: Params,
) -> None:
    dataset(published)
    PUBLISHED.unlink()
    with pytest.raises(ConfigError, match=r"^prompts/router-r1\.txt: cannot be read"):
        profile(published)
    PUBLISHED.write_text("Atlas and Mint can help.\nQuestion: {question}\n")
    with pytest.raises(ConfigError, match=r"^prompts/router-r1\.txt: .* does not name Goliath"):
        profile(published)
    assert not PATHS.pool.exists()


def test_the_full_prompt_teaches_the_published_protocol(pool: SimulatedPool) -> None:
    """What a Router-R1 checkpoint writes, spaces and all, is a call; and the prompt shows that very form."""
    text = renderer("full", 4)(Question("q", "d", "Who?", ("x",), "test"), pool.cards)
    for tag in protocol.TAGS:
        assert f"<{tag}>" in text
    assert "<search>LLM-Name:Your-Query</search>" in text
    said = "<think>\nI lack a fact.\n</think>\n\n<search> Atlas:Who was the first? </search>"
    names = protocol.names_of(pool.cards)
    assert protocol.parse_action(said, names) == Ask("Atlas", "Who was the first?")
    reply = protocol.information("Ada.", renderer("full", 4).reply)
    whole = f"{said}{reply}<think>It is Ada.</think>\n<answer> Ada </answer>"
    assert protocol.check(whole, names)
