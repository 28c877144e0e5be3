"""A transformers model as a Generator: continuous batching, with the KV cache kept over rounds.

All open sessions share one cache with a row each. A step either decodes one token for every session
that is generating, or prefills sessions that have several unread tokens (a prompt, an inserted reply);
equal prompts are read once and copied. A closed session's row is taken by the last one, so the rows in
use stay contiguous and decoding needs no gather.

Sampling inverts the cumulative distribution at a number from the session's own seeded stream. What a
session samples therefore depends on its neighbours only through rounding in batched matrix products:
runs are equal to the byte where the order of events is (in-process pools), and where it is not (HTTP)
if sessions move in step.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache
from transformers.utils.logging import disable_progress_bar

from routerr1.config import Params
from routerr1.errors import CheckpointError, ConfigError
from routerr1.protocol import STOPS
from routerr1.rollout.cache import RaggedLayer
from routerr1.rollout.graphs import Capture, DecodeGraphs, NotCapturable, captured
from routerr1.types import Finish, Generation

_log = logging.getLogger(__name__)

_STOP_WINDOW = 12  # tokens decoded to look for a stop string; the longest stop has 9 characters
_DAY = "26 Jul 2024"  # what Llama 3 templates fall back to
_AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}


class LocalSession:
    """See `Session`."""

    def __init__(self, owner: "LocalGenerator", prompt_ids: list[int], seed: int) -> None:
        self._owner = owner
        self._prompt_ids = tuple(prompt_ids)
        self.stream = Random(seed)
        self.row = -1  # its place in the cache; -1 before the first prefill
        self.read = 0  # tokens the cache holds
        self.unread = list(prompt_ids)
        self.request: _Request | None = None

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self._prompt_ids

    async def generate(self, *, max_new_tokens: int, temperature: float) -> Generation:
        return await self._owner.submit(self, max_new_tokens, temperature)

    def cut(self, text: str, max_tokens: int) -> str:
        return cut(self._owner.tokenizer, text, max_tokens)

    def insert(self, text: str) -> tuple[int, ...]:
        ids = self._owner.encode(text)
        self.unread.extend(ids)
        return tuple(ids)

    def close(self) -> None:
        self._owner.release(self)


class _Request:
    def __init__(self, max_new_tokens: int, temperature: float) -> None:
        self.done: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.ids: list[int] = []
        self.logprobs: list[float] = []


@dataclass(frozen=True, slots=True)
class Loading:
    """How a checkpoint is put to use.

    Attributes:
        dtype: what is computed in; the weights too, unless they are to be trained. `auto`: as saved.
        chat: the prompt is a user's turn in the tokenizer's chat template.
        max_length: see `LocalGenerator`.
    """

    device: str = "cpu"
    dtype: str = "float32"
    chat: bool = False
    max_length: int | None = None


def loading(params: Params) -> Loading:
    """What `params` mean on this machine; in a distributed run, for this process.

    Raises: ConfigError if they ask for a GPU that is not there.
    """
    device, dtype = params.model.device, params.model.dtype
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "params.yaml: model.device: cuda: no GPU is to be seen; auto takes a CPU then"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu else "float32"
    return Loading(
        f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_gpu else "cpu",
        dtype,
        params.prompt.chat,
        params.rollout.max_tokens,
    )


def opening(tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:
    """Token ids of a prompt; of special tokens there are those of the chat template alone.

    Raises: CheckpointError if there is no such template.
    """
    if not chat:
        return text_ids(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: has no chat template; set prompt.chat to false"
        )
    # Some templates (Llama 3) write the day into the prompt; a fixed one keeps runs equal.
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, date_string=_DAY,
        sanitize_control_tokens=True, return_dict=False,
    )  # fmt: skip
    return ids


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text that may come from anybody: what looks like a special token stays text."""
    ids: list[int] = tokenizer(text, **_AS_TEXT)["input_ids"]
    return ids


def cut(tokenizer: Any, text: str, max_tokens: int) -> str:
    """The longest beginning of `text` that is at most so many tokens."""
    if len(text.encode("utf-8", "surrogatepass")) <= max_tokens:  # a token is a byte at least
        return text
    places = tokenizer(text, **_AS_TEXT, return_offsets_mapping=True)["offset_mapping"]
    return text if len(places) <= max_tokens else text[: places[max_tokens][0]]


class LocalGenerator:
    """Plays any transformers causal LM with full attention as the policy.

    Args:
        max_length: tokens a session may hold, prompt included; a generation that would pass it ends
            with finish "length". By default the model's own limit.
        in_step: nobody reads a reply before everybody has one or is done, so that it does not matter
            when replies come. Slower over a network by the wait for each round's last reply.
        chat: see `Loading`.
        autocast: what to compute in where the weights are something else.
        capture: what makes CUDA graphs of decoding; None: kernels are launched one by one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        in_step: bool = False,
        chat: bool = False,
        autocast: torch.dtype | None = None,
        capture: Capture | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        holds = model.config.max_position_embeddings
        self.max_length = min(max_length or holds, holds)
        self.in_step = in_step
        self.chat = chat
        self.autocast = autocast
        self.capture = capture
        self._layers = [RaggedLayer() for _ in range(model.config.num_hidden_layers)]
        self._cache = Cache(layers=self._layers)
        self._graphs = DecodeGraphs(self._layers, capture) if capture else None
        self._rows: list[LocalSession] = []
        self._generating: dict[LocalSession, None] = {}  # a set that keeps order
        self._worker: asyncio.Task[None] | None = None
        self._closers = _tokens_with(tokenizer, ">")
        self._stop_ids = _single_tokens(tokenizer, STOPS)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        how: Loading = Loading(),
        *,
        in_step: bool = False,
        trained: bool = False,
    ) -> "LocalGenerator":
        """A saved policy or any checkpoint that transformers knows.

        Args:
            trained: the weights are to be trained: float32, whatever is computed in.

        Raises: CheckpointError naming the folder if it cannot be loaded.
        """
        disable_progress_bar()  # bars for a file of a megabyte only clutter
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype="float32" if trained else how.dtype
            )
        except Exception as error:  # transformers raises whatever its readers raise
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{folder}: is not a loadable checkpoint ({reason})") from error
        return cls(
            model.to(how.device).eval(),
            tokenizer,
            max_length=how.max_length,
            in_step=in_step,
            chat=how.chat,
            autocast=torch.bfloat16 if how.dtype == "bfloat16" and trained else None,
            capture=captured if how.device.startswith("cuda") else None,
        )

    def start(self, prompt: str, *, seed: int) -> LocalSession:
        """See `Generator.start`."""
        return LocalSession(self, opening(self.tokenizer, prompt, chat=self.chat), seed)

    def encode(self, text: str) -> list[int]:
        """See `text_ids`."""
        return text_ids(self.tokenizer, text)

    async def submit(
        self, session: LocalSession, max_new_tokens: int, temperature: float
    ) -> Generation:
        """Queue a generation; all that are queued move together."""
        room = self.max_length - session.read - len(session.unread)
        if room <= 0:
            return Generation("", finish="length")
        request = _Request(min(max_new_tokens, room), temperature)
        session.request = request
        self._generating[session] = None
        self._wake()
        return await request.done

    def _wake(self) -> None:
        if self._may_step() and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())

    def _may_step(self) -> bool:
        if not self.in_step:
            return bool(self._generating)
        decoding = any(_decodes(session) for session in self._generating)
        return decoding or (
            bool(self._generating) and all(session.request is not None for session in self._rows)
        )

    async def _work(self) -> None:
        try:
            while self._may_step():
                self._step()
                await asyncio.sleep(0)  # let finished sessions call the pool and come back
        except BaseException as error:
            for session in list(self._generating):
                self._fail(session, error)
            raise

    def _fail(self, session: LocalSession, error: BaseException) -> None:
        del self._generating[session]
        if session.request and not session.request.done.done():
            session.request.done.set_exception(error)

    def _step(self) -> None:
        unread = [session for session in self._generating if not _decodes(session)]
        reading = [session for session in self._generating if _decodes(session)]
        if self.in_step:
            if reading:
                self._decode(sorted(reading, key=_row))
            else:
                self._prefill(sorted(unread, key=_row))
        # Waiting for company makes prefills few; nobody waits once nobody decodes.
        elif unread and (not reading or 4 * len(unread) >= len(self._generating)):
            self._prefill(unread)
        else:
            self._decode(reading)

    @torch.no_grad()
    def _prefill(self, sessions: list[LocalSession]) -> None:
        new = [session for session in sessions if session.row < 0]
        for session in new:
            session.row = len(self._rows)
            self._rows.append(session)
        first: dict[tuple[int, ...], LocalSession] = {}
        for session in new:
            first.setdefault(tuple(session.unread), session)
        computed = [s for s in sessions if s not in new or first[tuple(s.unread)] is s]
        states = self._forward(computed, [session.unread for session in computed])
        hidden = dict(zip(computed, states, strict=True))
        for session in new:
            source = first[tuple(session.unread)]
            if source is not session:
                hidden[session] = hidden[source]
                for layer in self._layers:
                    layer.reserve(len(self._rows), len(session.unread))
                    layer.move(source.row, session.row, len(session.unread))
        for session in sessions:
            session.read += len(session.unread)
            session.unread = []
        self._sample(sessions, torch.stack([hidden[session] for session in sessions]))

    @torch.no_grad()
    def _decode(self, sessions: list[LocalSession]) -> None:
        hidden = self._decode_replayed(sessions)
        if hidden is None:
            hidden = self._decode_launched(sessions)
        for session in sessions:
            session.read += 1
            session.unread = []
        self._sample(sessions, hidden)

    def _decode_replayed(self, sessions: list[LocalSession]) -> Tensor | None:
        """None if there are no graphs."""
        if self._graphs is None:
            return None
        try:
            states = self._graphs.decode(
                self._tokens(sessions), [session.read for session in self._rows], self._decoded
            )
        except NotCapturable as error:
            _log.warning(
                "%s: decodes slowly, since it cannot be captured as a CUDA graph (%s)",
                type(self.model).__name__,
                " ".join(str(error).split())[:200],
            )
            self._graphs = None
            return None
        return states[[session.row for session in sessions]]

    def _decode_launched(self, sessions: list[LocalSession]) -> Tensor:
        if 2 * len(sessions) < len(self._rows):
            return self._forward(sessions, [session.unread for session in sessions])
        tokens = [[token] for token in self._tokens(sessions)]
        return self._forward(self._rows, tokens)[[session.row for session in sessions]]

    def _tokens(self, sessions: list[LocalSession]) -> list[int]:
        """What each row in use reads next.

        Rows that wait ride along with a dummy token, overwritten when they are read: cheaper than gathering
        the others' cache.
        """
        ready = set(sessions)
        return [session.unread[0] if session in ready else 0 for session in self._rows]

    def _decoded(self, ids: Tensor, positions: Tensor, span: int) -> Tensor:
        """Read a token into each of the first rows; the hidden states, (rows, hidden)."""
        rows = torch.arange(len(ids), device=ids.device)
        return self._read(ids, positions, rows, slice(0, len(ids)), len(ids), span)[:, 0]

    def _forward(self, sessions: list[LocalSession], unread: list[list[int]]) -> Tensor:
        """Read `unread[i]` into session i's row; the hidden state at each one's last, (sessions, hidden)."""
        device = self.model.device
        whole = sessions == self._rows
        width = max(map(len, unread))
        ids = torch.tensor(
            [tokens + [0] * (width - len(tokens)) for tokens in unread], device=device
        )
        start = torch.tensor([session.read for session in sessions], device=device)
        rows = torch.tensor([session.row for session in sessions], device=device)
        hidden = self._read(
            ids,
            start[:, None] + torch.arange(width, device=device),
            rows,
            slice(0, len(sessions)) if whole else rows,
            max(session.row for session in sessions) + 1,
            max(session.read for session in sessions) + width,
        )
        last = torch.tensor([len(tokens) - 1 for tokens in unread], device=device)
        return hidden[torch.arange(len(sessions), device=device), last]

    def _read(
        self,
        ids: Tensor,
        positions: Tensor,
        rows: Tensor,
        seen: Tensor | slice,
        height: int,
        span: int,
    ) -> Tensor:
        """Read `ids`, (rows, width), at `positions` into `rows` of the cache; hidden states, (rows, width, hidden).

        Args:
            seen: `rows`, as a slice where they are all that are in use.
            height, span: see `RaggedLayer`.
        """
        for layer in self._layers:
            layer.rows, layer.scatter_rows, layer.positions = seen, rows, positions
            layer.height, layer.span = height, span
        visible = torch.arange(span, device=ids.device)[None, None] <= positions[:, :, None]
        mask = _additive(visible, self.autocast or self.model.dtype)[:, None]
        # Each weight is used once, and what a graph remembers must not outlive its capture.
        cast = (
            torch.autocast(ids.device.type, self.autocast, cache_enabled=False)
            if self.autocast
            else nullcontext()
        )
        with cast:
            states: Tensor = self.model.get_decoder()(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            ).last_hidden_state
        return states

    def _sample(self, sessions: list[LocalSession], hidden: Tensor) -> None:
        logits = self.model.get_output_embeddings()(hidden).float()
        requests = [session.request for session in sessions]
        heat = torch.tensor([r.temperature if r else 0.0 for r in requests], device=logits.device)
        logprobs = torch.log_softmax(logits / heat.where(heat > 0, 1.0)[:, None], dim=-1)
        mass = logprobs.exp().cumsum(-1)
        draws = torch.tensor(
            [session.stream.random() for session in sessions], device=logits.device
        )
        sampled = torch.searchsorted(mass, (draws * mass[:, -1])[:, None], right=True)[:, 0]
        ids = torch.where(heat > 0, sampled.clamp(max=logits.shape[-1] - 1), logits.argmax(-1))
        chosen = logprobs.gather(1, ids[:, None])[:, 0]
        for session, token, logprob in zip(sessions, ids.tolist(), chosen.tolist(), strict=True):
            self._take(session, token, logprob)

    def _take(self, session: LocalSession, token: int, logprob: float) -> None:
        request = session.request
        if request is None:
            raise RuntimeError("a session without a request was sampled")
        session.unread.append(token)
        request.ids.append(token)
        request.logprobs.append(logprob)
        finish = self._finished(request, token)
        if finish is None:
            return
        session.request = None
        del self._generating[session]
        if request.done.done():  # cancelled, and not closed yet
            return
        text = self.tokenizer.decode(request.ids, skip_special_tokens=False)
        if finish == "eos":
            text = text.removesuffix(self.tokenizer.eos_token)
        request.done.set_result(
            Generation(text, tuple(request.ids), tuple(request.logprobs), finish)
        )

    def _finished(self, request: _Request, token: int) -> Finish | None:
        if token == self.tokenizer.eos_token_id:
            return "eos"
        if token in self._stop_ids:
            return "stop"
        if token in self._closers:
            tail = self.tokenizer.decode(request.ids[-_STOP_WINDOW:], skip_special_tokens=False)
            if tail.rstrip().endswith(STOPS):
                return "stop"
        return "length" if len(request.ids) >= request.max_new_tokens else None

    def release(self, session: LocalSession) -> None:
        """Give the session's row to the last one."""
        self._generating.pop(session, None)
        if session.row < 0:
            return
        last = self._rows.pop()
        if last is not session:
            for layer in self._layers if last.read else ():  # it may have failed before it read
                layer.move(last.row, session.row, last.read)
            last.row = session.row
            self._rows[last.row] = last
        session.row = -1
        self._wake()  # it may have been the one that the others waited for


def _decodes(session: LocalSession) -> bool:
    """Has read all but its own last token."""
    return session.row >= 0 and len(session.unread) == 1


def _row(session: LocalSession) -> int:
    return session.row


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what is added to attention scores."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )


def _single_tokens(tokenizer: Any, texts: Sequence[str]) -> frozenset[int]:
    """Ids of those texts that are one token of their own."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return frozenset(found[0] for found in ids if len(found) == 1)


def _tokens_with(tokenizer: Any, character: str) -> frozenset[int]:
    """Ids of tokens that hold `character`: only after one of these can a stop be complete."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return frozenset(i for i, token in enumerate(tokens) if token and character in token)
