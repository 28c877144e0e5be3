"""RouterArena's files (arXiv 2510.00202): its questions, the config of a router, and its predictions.

A prediction names one model for a question. Token counts are those of all calls, and RouterArena prices them
as tokens of the named model; `several` counts the questions where that is not exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from routerr1.errors import DataError
from routerr1.evaluate.rows import asked_of
from routerr1.files import write_json
from routerr1.pool.thoughts import without_thoughts
from routerr1.types import Question, Reply, Trajectory

DATASET = "routerarena"
NO_CALL = "the router called no candidate"


class _Entry(BaseModel):
    """A line of RouterArena's dataset/router_data_10.json or router_data.json; other keys are ignored."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    global_index: str = Field(alias="global index", min_length=1)
    prompt_formatted: str | None = None
    prompt: str | None = None


class TokenUsage(TypedDict):
    """Tokens that the candidates were sent and wrote."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class GeneratedResult(TypedDict):
    """What a router answered."""

    generated_answer: str
    success: bool
    token_usage: TokenUsage
    provider: str
    error: str | None


Prediction = TypedDict(
    "Prediction",
    {
        "global index": str,
        "prompt": str,
        "prediction": str,
        "generated_result": GeneratedResult | None,
        "cost": None,
        "accuracy": None,
    },
)
"""One element of router_inference/predictions/NAME.json; RouterArena fills cost and accuracy."""


@dataclass(frozen=True, slots=True)
class Names:
    """How candidates are called in RouterArena.

    Attributes:
        renamed: our name -> RouterArena's; a candidate that is not in it keeps its name.
    """

    renamed: Mapping[str, str]

    def of(self, candidate: str) -> str:
        """RouterArena's name."""
        return self.renamed.get(candidate, candidate)


def read_questions(path: Path) -> list[Question]:
    """The questions of a data set file, as RouterArena's prep_datasets.py writes it.

    Raises: DataError naming the file, and the entry that is malformed, has no prompt, or comes twice.
    """
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path}: {place}: {first['msg']}") from None
    questions: dict[str, Question] = {}
    for entry in entries:
        prompt = entry.prompt_formatted or entry.prompt
        if not prompt:
            raise DataError(f"{path}: {entry.global_index}: has no prompt")
        if entry.global_index in questions:
            raise DataError(f"{path}: {entry.global_index}: comes twice")
        questions[entry.global_index] = Question(entry.global_index, DATASET, prompt, (), "test")
    if not questions:
        raise DataError(f"{path}: holds no question")
    return list(questions.values())


def choice(question: Question, candidate: str, names: Names) -> Prediction:
    """The prediction of a router that has chosen and not called; RouterArena calls the model itself."""
    return _prediction(question, names.of(candidate), None)


def answered(played: Trajectory, names: Names, *, fallback: str, whole_reply: bool) -> Prediction:
    """The prediction of a router that has answered: the model of its last call, and the tokens of all.

    Args:
        fallback: the candidate that is named if the router called none; the result is then a failure.
        whole_reply: the reply is the answer, as of routers without a policy.
    """
    replies = _replies(played)
    if not replies:
        result = _result("", _usage([]), error=NO_CALL)
        return _prediction(played.question, names.of(fallback), result)
    last = replies[-1]
    answer = without_thoughts(last.text).strip() if whole_reply else (played.answer or "")
    error = None if answer else (last.failure or "the router gave no answer")
    result = _result(answer, _usage(replies), error=error)
    return _prediction(played.question, names.of(last.model), result)


def several(played: Sequence[Trajectory]) -> int:
    """Number of questions for which more than one candidate was called."""
    return sum(len({reply.model for reply in _replies(each)}) > 1 for each in played)


def write_router(
    root: Path, router: str, models: Sequence[str], predictions: Sequence[Prediction]
) -> tuple[Path, Path]:
    """Write the config and the predictions of a router below `root`, where a clone of RouterArena has them.

    Returns: both paths.
    """
    config = root / "router_inference/config" / f"{router}.json"
    found = root / "router_inference/predictions" / f"{router}.json"
    write_json(config, {"pipeline_params": {"router_name": router, "models": list(models)}})
    write_json(found, list(predictions))
    return config, found


def _replies(played: Trajectory) -> list[Reply]:
    return [reply for _, reply in asked_of(played)]


def _usage(replies: Sequence[Reply]) -> TokenUsage:
    sent = sum(reply.prompt_tokens for reply in replies)
    written = sum(reply.completion_tokens for reply in replies)
    return {"input_tokens": sent, "output_tokens": written, "total_tokens": sent + written}


def _result(answer: str, usage: TokenUsage, *, error: str | None) -> GeneratedResult:
    return {
        "generated_answer": answer,
        "success": error is None,
        "token_usage": usage,
        "provider": "routerr1",
        "error": error,
    }


def _prediction(question: Question, model: str, result: GeneratedResult | None) -> Prediction:
    return {
        "global index": question.id,
        "prompt": question.question,
        "prediction": model,
        "generated_result": result,
        "cost": None,
        "accuracy": None,
    }
