"""The private names of TRL and transformers that training uses, and what to look at when one breaks."""

import ast
import inspect
from pathlib import Path
from pkgutil import resolve_name

import pytest

import routerr1

ADAPTER = Path("train/trl_adapter.py")

GRPO_TRAINER = "trl:GRPOTrainer"  # named and not imported: no other test file pays for it
METHODS = {
    "GRPOTrainer._get_per_token_logps_and_entropies": (
        GRPO_TRAINER,
        ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"],
        "PackedTrainer overrides it to score packed rollouts: look at where GRPOTrainer computes "
        "log-probabilities, and at what _compute_loss takes from the three values returned",
    ),
    "Trainer._load_from_checkpoint": (
        "transformers:Trainer",
        ["self", "resume_from_checkpoint"],
        "load_weights calls it to make up for a validation that a spent budget prevented: look at how "
        "Trainer.train loads the weights it resumes from",
    ),
    "VLLMGeneration._iter_named_params": (
        "trl.generation.vllm_generation:VLLMGeneration",
        ["self"],
        "_reload_weights gives them to an engine on a CPU: look at how VLLMGeneration.sync_weights walks "
        "through the weights of the trainer",
    ),
    "Trainer._save_checkpoint": (
        "transformers:Trainer",
        ["self", "model", "trial"],
        "save_checkpoint calls it when a spent budget stops training: look at where Trainer saves every "
        "save_steps, and at the order of the files and of on_save",
    ),
}
ATTRIBUTES = {
    "_metrics": (
        'self._metrics[mode]["',
        "PackedTrainer adds the rehearsal loss to them: look at what GRPOTrainer.log averages",
    ),
    "_last_loaded_step": (
        "self.state.global_step != self._last_loaded_step",
        "sync_vllm_weights sets it, so that the next step does not load vLLM again: look at where "
        "GRPOTrainer calls vllm_generation.sync_weights",
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_private_method_of_trl_is_as_the_adapter_uses_it(name: str) -> None:
    owner, wanted, advice = METHODS[name]
    method = getattr(resolve_name(owner), name.partition(".")[2], None)
    assert method is not None, f"{name} is gone. {advice}"
    found = list(inspect.signature(method).parameters)
    assert found[: len(wanted)] == wanted, f"{name} takes {found}. {advice}"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_private_attribute_of_trl_is_as_the_adapter_uses_it(name: str) -> None:
    use, advice = ATTRIBUTES[name]
    assert use in inspect.getsource(resolve_name(GRPO_TRAINER)), (
        f"GRPOTrainer.{name} has changed. {advice}"
    )


def test_the_prompts_of_a_step_reach_the_rollouts_with_the_trainer() -> None:
    call = "self.rollout_func(prompts, self)"
    sources = inspect.getsource(resolve_name(GRPO_TRAINER))
    assert call in sources, "rollout_func is called in another way: look at StepRollouts.__call__"


def private_uses(path: Path) -> set[str]:
    """Private attributes of `trainer`, and private members that a subclass of a trainer overrides or reads."""
    tree = ast.parse(path.read_text())
    trainers = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and "Trainer" in base.id for base in node.bases)
    ]
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("trainer", "generation")
    }
    for owner in trainers:
        found |= {node.attr for node in ast.walk(owner) if isinstance(node, ast.Attribute)}
        found |= {node.name for node in ast.walk(owner) if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_the_adapter_alone_uses_private_names_and_each_is_checked_here() -> None:
    package = Path(routerr1.__file__).parent
    used = {
        path.relative_to(package): found
        for path in package.rglob("*.py")
        if "Trainer" in path.read_text() and (found := private_uses(path))
    }
    callback = {Path("train/callbacks.py")}  # a TrainerCallback; its private names are its own
    assert used.keys() - callback == {ADAPTER}
    checked = {name.partition(".")[2] for name in METHODS} | set(ATTRIBUTES)
    assert used[ADAPTER] == checked
