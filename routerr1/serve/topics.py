"""What a question is about, by the questions that its router learned from; in a thread of its own."""

from concurrent.futures import Future, ThreadPoolExecutor

from routerr1.baselines.likeness import KnownQuestions, Likeness


class Topics:
    """Compares questions with known ones, one at a time and beside the answering."""

    def __init__(self, known: KnownQuestions) -> None:
        self._known = known
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="routerr1-topics")

    def place(self, question: str) -> Future[Likeness]:
        """Where a question lies among the known ones, soon."""
        return self._thread.submit(self._known.compare, question)

    def close(self) -> None:
        """Place no further questions."""
        self._thread.shutdown(wait=False, cancel_futures=True)
