"""A call whose reply is listened to while it is written."""

from collections.abc import Callable, Sequence
from functools import partial

from pydantic import JsonValue

from routerr1.pool.attempts import Completion, read_completion
from routerr1.pool.base import Call
from routerr1.pool.forward import Target, exchanged
from routerr1.pool.pool_file import CandidateRow, PoolFile
from routerr1.pool.words import Words


class Listening:
    """One call while it is tried.

    Args:
        hear: called with words that are new, as soon as they are certain to be in the reply.
        secrets: see `Words`.
    """

    def __init__(self, hear: Callable[[str], None], secrets: Sequence[str]) -> None:
        self._hear = hear
        self._secrets = secrets
        self._heard = ""

    async def send(
        self,
        target: Target,
        file: PoolFile,
        row: CandidateRow,
        query: str,
        total_s: float,
        *,
        live: bool,
    ) -> Completion:
        """Make one try; what it writes is heard from where earlier tries ended, if it begins as they did.

        Words that were heard stay in the reply, even if a mark that ends thoughts follows them.

        Args:
            live: words may be heard before the reply is known to its end.

        Raises: TryError.
        """
        words, written = Words(self._secrets), ""

        def read(event: bytes) -> None:
            nonlocal written
            written += words.more(event)
            if len(written) > len(self._heard) and written.startswith(self._heard):
                new, self._heard = written[len(self._heard) :], written
                self._hear(new)

        body: dict[str, JsonValue] = {
            **file.request(Call(row.name, query)),
            "stream": True,
            "stream_options": {"include_usage": True},  # or the call could not be priced
        }
        content, headers = await exchanged(target, body, total_s, read if live else _ignored)
        read_as = partial(read_completion, content, query, headers=headers, stream=True)
        found = read_as(thoughts=row.thoughts)
        if found.text.lstrip().startswith(self._heard):
            return found
        whole = read_as(thoughts="keep")
        return whole if whole.text.lstrip().startswith(self._heard) else found


def _ignored(_: bytes) -> None:
    """Nothing is heard of an event."""
