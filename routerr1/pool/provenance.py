"""Where the replies of a store come from: a small JSON file beside the store."""

from datetime import date
from pathlib import Path

from pydantic import BaseModel, ValidationError

from routerr1.errors import DataError, PoolError
from routerr1.files import read_json
from routerr1.pool.cards import first_problem


class Conditions(BaseModel):
    """When and on what replies were recorded.

    Attributes:
        server: name and version of the software that computed the replies.
        machine: CPU, cores and memory.
        recorded: the last day of recording.
        latency: how the latencies came about.
    """

    server: str
    machine: str
    recorded: date
    latency: str


class Earlier(Conditions):
    """Conditions of replies that the store held before others were added to it.

    Attributes:
        count: of these replies.
    """

    count: int


class Provenance(Conditions):
    """Who gave the replies of a store, when and on what.

    Attributes:
        forms: digest of all that decides a reply but the weights (`laptop.recording.forms_digest`).
        models: server name -> hub repository, file and digest of the weights, or the model's name elsewhere.
        parameters: of every request.
        replies: candidate -> number of replies.
        questions: distinct questions with a reply of every candidate.
        earlier: other conditions of a part of the replies, the oldest first.
    """

    forms: str
    models: dict[str, dict[str, str]]
    parameters: dict[str, int | float]
    replies: dict[str, int]
    questions: int
    earlier: tuple[Earlier, ...] = ()

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models, named as their hub repositories are.

        >>> row = {"hub": "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"}
        >>> Provenance.model_construct(models={"qwen": row}).model_names
        ('Qwen2.5-Coder-0.5B-Instruct',)
        """
        hubs = [row["hub"].rpartition("/")[2] for row in self.models.values() if "hub" in row]
        return tuple(hub.removesuffix("-GGUF") for hub in hubs)


def provenance_file(store: Path) -> Path:
    """The file beside a store.

    >>> provenance_file(Path("pools/replies.jsonl.gz")).as_posix()
    'pools/replies.provenance.json'
    """
    return store.with_suffix("").with_suffix(".provenance.json")


def read_provenance(store: Path) -> Provenance | None:
    """Where the replies of `store` come from; None if no file says so.

    Raises: PoolError naming the file if it is damaged.
    """
    path = provenance_file(store)
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate(read_json(path))
    except DataError as error:
        raise PoolError(str(error)) from None
    except ValidationError as error:
        raise PoolError(f"{path}: {first_problem(error)}") from None
