"""What each router of the tables is, in a line."""

from routerr1.evaluate.controls import FORCED, ORACLE

_ROUTERS = {
    "policy": "the trained policy",
    "best_single": "the policy's text; every call goes to the candidate that was best on validation",
    "random": "the policy's text; each call goes to a candidate drawn at random",
    "closed_book": "the policy's text; every call is refused",
    "best_of_singles": "for each question the best answer of those with one candidate asked it whole, the cheapest on ties",
    "policy_before_rl": "the policy before reinforcement learning",
    "best_on_cards": "the policy's text; each call goes to whoever the cards call best on its topic",
    "baseline/direct": "the policy before reinforcement learning answers at once",
    "baseline/cot": "the policy before reinforcement learning thinks, then answers; no calls",
    "baseline/sft": "fine-tuned on questions and answers; no calls",
    "baseline/rag": "one search with the whole question, then the answer",
    "baseline/search_r1": "the policy before reinforcement learning, with a search as its only tool",
    "baseline/prompted": "the policy before reinforcement learning names a candidate; it gets the whole question",
    "baseline/policy_before_rl": "the policy before reinforcement learning, as it is: several rounds",
    "baseline/largest": "the largest candidate, or the dearest where no sizes are known, gets the whole question",
    "baseline/knn": "neighbours in the probe matrix choose who gets the whole question",
    "baseline/knn_multi_turn": "the same for each sub-question of the policy before reinforcement learning",
    "baseline/mlp": "a perceptron over the question's embedding chooses who gets it whole",
    "baseline/bert": "a fine-tuned encoder chooses who gets the whole question",
    "baseline/router_dc": "RouterDC: contrastive embeddings choose who gets the whole question",
    "baseline/graph_router": "GraphRouter: a graph of questions, their clusters and candidates chooses who gets the whole question",
    "baseline/frugal": "FrugalGPT: candidates by rising price until a reply is believed",
}


_KNOWING_ORACLE = (
    "the policy's text; each call goes to the cheapest candidate that knows the answer"
)
_CHOOSING_ORACLE = (
    "for each question the best whole run of those with one candidate for every call, the cheapest on ties: "
    "nobody knows of a single call who would answer right"
)


def what_is(router: str, *, simulated: bool) -> str:
    """Of a router's name in rows and tables; empty if it is none of this package's.

    Args:
        simulated: the pool is; only then the oracle knows the right candidate of every call.

    >>> what_is("fixed/Atlas", simulated=True)
    "the policy's text; every call goes to Atlas"
    """
    if router.startswith(FORCED):
        return f"the policy's text; every call goes to {router.removeprefix(FORCED)}"
    if router.startswith("alpha="):
        return f"a policy trained with {router.removeprefix('alpha=')} as the weight of cost"
    if router == ORACLE:
        return _KNOWING_ORACLE if simulated else _CHOOSING_ORACLE
    return _ROUTERS.get(router, "")
