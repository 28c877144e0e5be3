"""RouterArena's files: what its own check asks of them, and where the tokens come from."""

import json
from pathlib import Path

import pytest

from routerr1.baselines.arena import (
    NO_CALL,
    Names,
    answered,
    choice,
    read_questions,
    several,
    write_router,
)
from routerr1.baselines.replies import Always, answer_all
from routerr1.errors import DataError
from routerr1.rollout.loop import trajectory_of
from routerr1.types import Answer, Ask, Generation, Question, Reply, Turn

ENTRIES = [
    {"global index": "ArcMMLU_1", "prompt_formatted": "Which letter?\n", "prompt": "raw", "context": "None"},
    {"global index": "AIME_2", "prompt": "How many?", "metadata": {"a": 1}},
]  # fmt: skip
NAMES = Names({"Atlas": "gpt-4o-mini"})


def check(root: Path, router: str, dataset: list[dict]) -> list[str]:
    """What router_inference/check_config_prediction_files.py of RouterArena asks for, with results checked."""
    config = json.loads((root / f"router_inference/config/{router}.json").read_text())
    found = json.loads((root / f"router_inference/predictions/{router}.json").read_text())
    models = set(config["pipeline_params"]["models"])
    wanted = {entry["global index"]: entry for entry in dataset}
    errors = [] if len(found) == len(dataset) else ["size"]
    for prediction in found:
        entry = wanted[prediction["global index"]]
        if prediction["prompt"] != (entry.get("prompt_formatted") or entry.get("prompt")):
            errors.append("prompt")
        if prediction["prediction"] not in models:
            errors.append("model")
        result = prediction["generated_result"]
        if result is not None:
            if {"generated_answer", "success", "token_usage"} - result.keys():
                errors.append("fields")
            if result["success"] and not result["generated_answer"].strip():
                errors.append("empty")
    return errors


def _dataset(folder: Path, entries: list[dict]) -> Path:
    path = folder / "router_data_10.json"
    path.write_text(json.dumps(entries))
    return path


def test_questions_are_the_formatted_prompts_byte_for_byte(tmp_path):
    found = read_questions(_dataset(tmp_path, ENTRIES))
    assert [(each.id, each.question) for each in found] == [
        ("ArcMMLU_1", "Which letter?\n"),
        ("AIME_2", "How many?"),
    ]


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([{"prompt": "x"}], r"0\.global index: Field required"),
        ([{"global index": "A_1"}], "A_1: has no prompt"),
        ([ENTRIES[1], ENTRIES[1]], "AIME_2: comes twice"),
        ([], "holds no question"),
        ({"a": 1}, "the file: Input should be a valid array"),
    ],
)
def test_a_malformed_data_set_is_named(tmp_path, entries, why):
    with pytest.raises(DataError, match=rf"router_data_10\.json: .*{why}"):
        read_questions(_dataset(tmp_path, entries))


async def test_a_router_of_whole_replies_passes_the_check_with_the_tokens_of_its_calls(
    world, tmp_path
):
    questions = read_questions(_dataset(tmp_path, ENTRIES))
    played = await answer_all(questions, Always("Atlas"), world.pool, seed=1, concurrency=8)
    predictions = [answered(each, NAMES, fallback="Mint", whole_reply=True) for each in played]
    write_router(tmp_path, "ours", ["gpt-4o-mini", "Mint"], predictions)
    assert check(tmp_path, "ours", ENTRIES) == []
    for prediction, trajectory in zip(predictions, played, strict=True):
        result = prediction["generated_result"]
        assert result is not None
        assert prediction["prediction"] == "gpt-4o-mini"
        assert result["token_usage"]["input_tokens"] == trajectory.ledger.prompt_tokens > 0
        assert result["token_usage"]["output_tokens"] == trajectory.ledger.completion_tokens > 0
    assert several(played) == 0


QUESTION = Question("AIME_2", "routerarena", "How many?", (), "test")


def _played(*turns: Turn):
    return trajectory_of(QUESTION, (), turns, "answered")


def _call(model: str, text: str, prompt: int, completion: int, failure=None) -> Turn:
    reply = Reply(model, text, prompt, completion, failure=failure)
    return Turn(Generation(""), Ask(model, "q"), reply, text)


def test_a_policy_names_its_last_model_and_counts_the_tokens_of_all():
    played = _played(
        _call("Mint", "4", 10, 2),
        _call("Ghost", "", 0, 0, "unknown_model"),
        _call("Atlas", "5", 20, 3),
        Turn(Generation("<answer>5</answer>"), Answer("5")),
    )
    found = answered(played, NAMES, fallback="Mint", whole_reply=False)
    assert found["prediction"] == "gpt-4o-mini"
    assert found["generated_result"] == {
        "generated_answer": "5", "success": True, "provider": "routerr1", "error": None,
        "token_usage": {"input_tokens": 30, "output_tokens": 5, "total_tokens": 35},
    }  # fmt: skip
    assert several([played]) == 1


def test_without_a_call_or_an_answer_the_result_is_a_failure(tmp_path):
    silent = _played(Turn(Generation("<answer>5</answer>"), Answer("5")))
    nothing = answered(silent, NAMES, fallback="Mint", whole_reply=False)
    assert nothing["prediction"] == "Mint"
    assert nothing["generated_result"] is not None
    assert (nothing["generated_result"]["success"], nothing["generated_result"]["error"]) == (
        False,
        NO_CALL,
    )
    down = answered(
        _played(_call("Mint", "", 7, 0, "timeout")), NAMES, fallback="Atlas", whole_reply=True
    )
    assert down["generated_result"] is not None
    assert down["generated_result"]["error"] == "timeout"
    write_router(tmp_path, "ours", ["Mint"], [nothing, down])
    assert check(tmp_path, "ours", [ENTRIES[1]] * 2) == []


def test_a_choice_leaves_the_result_to_routerarena(tmp_path):
    write_router(tmp_path, "ours", ["gpt-4o-mini"], [choice(QUESTION, "Atlas", NAMES)])
    assert check(tmp_path, "ours", [ENTRIES[1]]) == []
    (found,) = json.loads((tmp_path / "router_inference/predictions/ours.json").read_text())
    assert found == {
        "global index": "AIME_2", "prompt": "How many?", "prediction": "gpt-4o-mini",
        "generated_result": None, "cost": None, "accuracy": None,
    }  # fmt: skip
