"""The `servers` section of a pool file: what `routerr1 pool up` starts on this machine.

Servers are named as the endpoints of the file are, and each listens at its endpoint's address. A desk
may also ask a server that is started by other means, such as Ollama or vLLM.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelServer(_Section):
    """One GGUF file behind one llama.cpp server.

    Attributes:
        hub: the repository on the Hugging Face hub that publishes the weights.
        file: name of the GGUF file, in the repository and in the folder of models.
        sha256: of the whole file; another file is refused.
        license: of the weights.
        slots: requests computed together; each has `context_tokens` of its own.
        threads: CPU threads.
    """

    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    file: Annotated[str, Field(pattern=r"^[\w.-]+\.gguf$")]
    sha256: Digest
    license: str = Field(min_length=1)
    slots: int = Field(default=4, ge=1, le=64)
    context_tokens: int = Field(default=1024, ge=256)
    threads: int = Field(default=2, ge=1)


class Book(_Section):
    """The part of the facts that a desk has as notes.

    Attributes:
        topics: whose facts are in the book; every one must occur in the file of facts.
        share: of each topic's facts that the book holds, in (0, 1].
        seed: decides which facts; two books of one seed and topic hold the same facts.
        notes: passages put in front of the model, at most.
        least_score: BM25 score that the best passage must reach; below it the desk answers `refusal`
            by itself and its model is not asked.
    """

    topics: tuple[str, ...] = Field(min_length=1)
    share: float = Field(gt=0, le=1)
    seed: int = 0
    notes: int = Field(default=3, ge=1, le=20)
    least_score: float = Field(default=0.0, ge=0)


class Desk(_Section):
    """A model that is asked in a fixed form, with or without a book of notes.

    Attributes:
        model: the endpoint whose model answers.
        form: `chat` gives the instruction as the system message; `complete` continues `Question: ...
            Answer:` after worked examples, for models that were never tuned to follow instructions.
        instruction: system message of the chat form; unused by the other.
        examples: worked examples of the `complete` form.
        refusal: what the desk says where its book holds nothing on the question.
        book: None for a desk without notes.
    """

    model: str
    form: Literal["chat", "complete"] = "chat"
    instruction: str = ""
    examples: str = ""
    refusal: str = "Not in my notes."
    book: Book | None = None

    @model_validator(mode="after")
    def _form_has_its_text(self) -> "Desk":
        if self.form == "complete" and not self.examples:
            raise ValueError("form `complete` needs `examples`")
        if self.form == "chat" and self.examples:
            raise ValueError("`examples` belong to form `complete`")
        return self


class DeskServer(_Section):
    """One server for all desks.

    Attributes:
        facts: JSON lines of `topic` and `text`, relative to the pool file.
        desks: by the model id that candidates name.
    """

    facts: str
    desks: dict[str, Desk] = Field(min_length=1)


class Servers(_Section):
    """Servers by endpoint name.

    Attributes:
        models: llama.cpp servers.
        elsewhere: servers that `routerr1 pool up` does not start, and the model that desks ask there.
        desks: servers for desks, which ask the servers in `models` and `elsewhere`.
    """

    models: dict[str, ModelServer] = Field(default_factory=dict)
    elsewhere: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    desks: dict[str, DeskServer] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _desks_have_models(self) -> "Servers":
        if not self.names:
            raise ValueError("needs `models` or `desks`")
        for name in self.elsewhere:
            if name in self.models:
                raise ValueError(f"{name!r} is both in models and elsewhere")
        for name, server in self.desks.items():
            if name in self.models or name in self.elsewhere:
                raise ValueError(f"{name!r} is both a model's server and a desks' server")
            for desk_name, desk in server.desks.items():
                if desk.model not in self.models and desk.model not in self.elsewhere:
                    raise ValueError(
                        f"desk {desk_name!r} names model server {desk.model!r}, which is not in models "
                        "or elsewhere"
                    )
        return self

    def model_id(self, name: str) -> str:
        """What requests to a model's server call the model."""
        return self.elsewhere[name] if name in self.elsewhere else self.models[name].file

    @property
    def names(self) -> tuple[str, ...]:
        """The servers that `routerr1 pool up` starts, those of models first."""
        return (*self.models, *self.desks)
