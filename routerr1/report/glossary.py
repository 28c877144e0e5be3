"""Names of routers and terms for people."""

from collections.abc import Iterable
from typing import NamedTuple

from routerr1.evaluate.controls import ORACLE
from routerr1.evaluate.routers import RouterId
from routerr1.report.sections import Section, table_of


class Entry(NamedTuple):
    """A router's name in tables and plots, and one line that says what it is."""

    label: str
    meaning: str


_BEFORE = "the policy before reinforcement learning"
_CONTROLS = {
    "policy": Entry("Policy", "the trained policy"),
    "best_single": Entry("Best single model", "the policy's text; every call goes to the candidate that is best on probes and validation"),
    "random": Entry("Random model", "the policy's text; each call goes to a random candidate"),
    "closed_book": Entry("No calls", "the policy's text; every call is refused (closed book)"),
    "best_of_singles": Entry("Best of all replies", "bound: each candidate gets the whole question, and the best answer counts; the cheapest on ties"),
    "policy_before_rl": Entry("Policy before RL", _BEFORE),
    "best_on_cards": Entry("Best by card", "the policy's text; each call goes to the candidate with the highest profiled accuracy on the topic"),
}  # fmt: skip
_BASELINES = {
    "direct": Entry("Direct answer", f"{_BEFORE} answers at once"),
    "cot": Entry("Chain of thought", f"{_BEFORE} thinks, then answers; no calls"),
    "sft": Entry("Fine-tuned (SFT)", "fine-tuned on questions and answers; no calls"),
    "rag": Entry("RAG", "one search with the whole question, then the answer"),
    "search_r1": Entry("Search-R1", f"{_BEFORE}, with a search as its only tool"),
    "prompted": Entry("Prompted choice", f"{_BEFORE} names a candidate, which gets the whole question"),
    "policy_before_rl": Entry("Policy before RL", f"{_BEFORE}, over several rounds"),
    "largest": Entry("Largest model", "the largest candidate (the most expensive if sizes are unknown) gets the whole question"),
    "knn": Entry("kNN", "the nearest probe questions choose the candidate for the whole question"),
    "knn_multi_turn": Entry("kNN per sub-question", f"kNN for each sub-question of {_BEFORE}"),
    "ask_again": Entry("Best by topic, then the next", f"each sub-question of {_BEFORE} goes to the candidate that was right most often on its topic, and if it is asked again to the next"),
    "ask_sure_first": Entry("Surest by topic, then the next", f"each sub-question of {_BEFORE} goes to the candidate with the highest figure of a look-up on its topic, and if it is asked again to the next"),
    "mlp": Entry("MLP", "a perceptron over the question's embedding chooses the candidate"),
    "bert": Entry("BERT", "a fine-tuned encoder chooses the candidate for the whole question"),
    "router_dc": Entry("RouterDC", "contrastive embeddings choose the candidate for the whole question"),
    "graph_router": Entry("GraphRouter", "a graph of questions, their clusters and candidates chooses the candidate"),
    "frugal": Entry("FrugalGPT", "a cascade: candidates by rising price until a reply is trusted"),
    "majority_of_three": Entry("Majority of three", "the three best candidates get the question, and the most frequent answer counts"),
    "two_best_tagged": Entry("Two best, the tagged one", "the two best candidates get the question; the first reply with an answer tag counts"),
    "two_knowing_tagged": Entry("Two that know most, the tagged one", "the two candidates whose replies contain the reference most often get the question; the first reply with an answer tag counts"),
}  # fmt: skip
_PER_PART = {  # with a count of probes or a level of spend
    "best": Entry("Best on {} probes", "the candidate with the highest accuracy on the topic, over {} probe questions"),
    "beta": Entry("Beta mean on {} probes", "the candidate with the highest posterior mean of its accuracy on the topic, after {} probe questions"),
    "thompson": Entry("Thompson on {} probes", "the candidate with the highest draw from the posterior of its accuracy on the topic, after {} probe questions"),
    "knn": Entry("kNN on {} probes", "the nearest of {} probe questions choose the candidate"),
    "knn_spend": Entry("kNN at spend {}", "kNN less the price of cost at spend level {}: 0 at level 10, at level 5 a third of a right answer for the most expensive candidate"),
}  # fmt: skip
_FEW_CARDS = Entry(
    "Prompted choice, {} probes", "as the prompted choice, with cards of {} probe questions"
)
_WITHOUT_POLICY = {
    "best_single": "the candidate that is best on probes and validation gets every question",
    "random": "a random candidate gets the question",
    "oracle": "bound: the best fixed model for each question, in hindsight; the cheapest on ties",
}
_KNOWING_ORACLE = (
    "bound: the policy's text; each call goes to the cheapest candidate that knows the answer"
)
_CHOOSING_ORACLE = (
    "bound: the best fixed model for each question, in hindsight; the cheapest on ties. A router that calls "
    "several models for one question can beat it"
)


def entry_of(router: str, *, simulated: bool = True, policy: bool = True) -> Entry:
    """Label and meaning of a router; an unknown one has its name as label and no meaning.

    Args:
        router: as in the rows.
        simulated: the pool is simulated. Only then the oracle knows the right candidate for each call.
        policy: a policy writes and reads for controls and baselines; without one, replies are the answers.

    >>> entry_of("fixed/Atlas")
    Entry(label='Always Atlas', meaning="the policy's text; every call goes to Atlas")
    """
    match RouterId.parse(router):
        case ("fixed", name) if not policy:
            return Entry(f"Always {name}", f"{name} gets every question")
        case (_, name) if not policy and name in _WITHOUT_POLICY:
            return Entry(
                _CONTROLS[name].label if name in _CONTROLS else "Oracle", _WITHOUT_POLICY[name]
            )
        case ("fixed", name):
            return Entry(f"Always {name}", f"the policy's text; every call goes to {name}")
        case ("swept", weight):
            return Entry(
                f"Cost weight {weight}", f"a policy trained with {weight} as the weight of cost"
            )
        case ("baseline", name):
            return _BASELINES.get(name) or _counted(name, policy=policy)
        case (_, name) if name == ORACLE:
            return Entry("Oracle", _KNOWING_ORACLE if simulated else _CHOOSING_ORACLE)
        case (_, name):
            return _CONTROLS.get(name, Entry(name, ""))


def _counted(name: str, *, policy: bool) -> Entry:
    """A baseline whose name ends in a number."""
    kind, _, number = name.rpartition("_")
    part = "for the whole question" if not policy else f"for each sub-question of {_BEFORE}"
    if kind == "prompted":
        return Entry(*(text.format(number) for text in _FEW_CARDS))
    if kind not in _PER_PART:
        return Entry(name, "")
    said, meaning = (text.format(number) for text in _PER_PART[kind])
    return Entry(said, f"{meaning}; {part}")


def label(router: str) -> str:
    """The router's name in tables and plots."""
    return entry_of(router).label


def routers_section(routers: Iterable[str], *, simulated: bool, policy: bool = True) -> Section:
    """What each router is, with its name in files and for `routerr1 compare`."""
    entries = {
        name: entry_of(name, simulated=simulated, policy=policy) for name in dict.fromkeys(routers)
    }
    rows = [(each.label, name, each.meaning) for name, each in entries.items() if each.meaning]
    return Section(
        "What each router is",
        table=table_of(("Router", "Name in files", "Meaning"), rows),
        folded=True,
    )


TERMS = (
    ("EM", "exact match: share of the questions with exactly a reference answer, after normalisation; where a model's whole reply is the answer, it has to contain one"),
    ("USD per 1,000", "price of the pool calls for 1,000 questions; the policy's own compute is not included"),
    ("Learning", "calls to candidates, and their price, before the router answers its first question: probes, training and validation (mean over seeds); recorded replies count with their price"),
    ("sd", "standard deviation of EM over training seeds"),
    ("p", "p-value of the difference, Holm-corrected over all comparisons of the table; ≤ marks an upper bound, because the bootstrap cannot show a smaller one"),
    ("MDE", "minimum detectable effect: the smallest true difference that this comparison finds in four of five repetitions, at the corrected level"),
    ("Front", "the best EM for each cost that a random mix of routers reaches; it starts at no calls and no answers"),
)  # fmt: skip
