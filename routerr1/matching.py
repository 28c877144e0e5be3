"""Is a prediction right? SQuAD's normalisation, exact match and token F1 (arXiv 1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, ASCII punctuation and English articles dropped, white space folded.

    >>> normalise("The  U.S.A.")
    'usa'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals a normalised gold, else 0.0.

    A gold that normalises to nothing matches only a prediction that does too, as in the reference;
    the data checks refuse such golds, since they say nothing.
    """
    wanted = normalise(prediction)
    return float(any(normalise(gold) == wanted for gold in golds))


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """Best token F1 over the golds, in [0, 1]; 0.0 without golds or shared tokens.

    `yes`, `no` and `noanswer` earn no partial credit, as in the HotpotQA scorer (arXiv 1809.09600).

    >>> round(token_f1("the old Paris", ["Paris", "London"]), 3)
    0.667
    """
    return max((_f1(normalise(prediction), normalise(gold)) for gold in golds), default=0.0)


def _f1(prediction: str, gold: str) -> float:
    if prediction != gold and ({prediction, gold} & {"yes", "no", "noanswer"}):
        return 0.0
    said, wanted = prediction.split(), gold.split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
