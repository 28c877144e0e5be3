"""How evenly calls are shared out: one measure for training, evaluation and the gate."""

import math
from collections.abc import Mapping


def entropy_bits(counts: Mapping[str, int]) -> float:
    """Shannon entropy of the shares, in bits: 0 where one takes all or there are none, log2(n) where n share evenly.

    >>> entropy_bits({"a": 2, "b": 1, "c": 1})
    1.5
    """
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count]
    return sum((-share * math.log2(share) for share in shares), start=0.0)
