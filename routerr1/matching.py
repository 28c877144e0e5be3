"""Whether a prediction is right: two rules of normalisation, exact match, token F1 and containment.

`squad` is the rule of the paper's benchmarks (SQuAD, arXiv 1606.05250). It is made for English: it removes ASCII
punctuation, so `3.5` equals `35`, and it keeps an accent that is written as two code points apart from one.
`text` is the rule for any other set. It works in every script and compares numbers as numbers.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

Rule = Literal["squad", "text"]
RULES: tuple[Rule, ...] = get_args(Rule)

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_YES_NO = {"yes", "no"}
_NO_PARTIAL_CREDIT = {"yes", "no", "noanswer"}

_QUOTES = dict.fromkeys("'`´‘’‚‛′ʼ", "'")
_DASHES = dict.fromkeys("-‐‑‒–—―−﹘﹣", "-")
_SIGNS = {"⁄": "/", "∕": "/", "٫": ".", "٬": ","}
_UNIFIED = str.maketrans(_QUOTES | _DASHES | _SIGNS)
# Before NFKC: it would write 2½ as 21/2, and thin blanks between groups of digits as any others.
_THIN_BLANK = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_FRACTION = re.compile("([\u00bc-\u00be\u2150-\u215f\u2189])")
# A minus after a letter, a digit or a closing bracket joins two words; before a number it is a sign.
_NUMBER = re.compile(
    r"(?:(?<![^\W_])(?<![.)\]])-)?(?<![^\W_])(?<!\.)(?:"
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?"  # 1,000.5
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"  # 1,00,000.5, as in India
    r"|\d{1,3}(?:'\d{3})+(?:\.\d+)?"  # 1'000.5
    r"|\d{1,3}(?:\.\d{3})+,\d+"  # 1.000,5
    r"|\d{1,3}(?:\.\d{3}){2,}"  # 1.000.000
    r"|\d+(?:[.,]\d+)?"  # 3.5 and 3,5
    r"|\.\d+"  # .5
    r")(?![^\W_]|[.,]\d)"
)
# Scripts that put no blank between words: each character is a token of its own.
_UNSPACED = re.compile(
    r"(?!\d)"
    "([\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fa1f])"
)
_AFTER_LETTER = {"+", "#"}  # C++ and C# are not C


def normalise(text: str, rule: Rule = "squad") -> str:
    """`text` as it is compared: tokens with one blank between them.

    Args:
        rule: `squad` lowers the case and removes ASCII punctuation and English articles. `text` applies NFKC and
            case folding, unifies quotes and dashes, writes equal numbers alike, separates the characters of scripts
            without blanks, and removes Unicode punctuation and leading English articles. A comma before other than
            three digits is a decimal comma.

    >>> normalise("The  U.S.A."), normalise("The U.S.A.", "text")
    ('usa', 'usa')
    >>> normalise("1,000.0 – 3,5", "text"), normalise("−5", "text")
    ('1000 3.5', '-5')
    """
    if rule == "squad":
        return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
    return " ".join(_tokens(text))


def exact_match(prediction: str, references: Sequence[str], rule: Rule = "squad") -> float:
    """1.0 if the normalised prediction equals a normalised reference, else 0.0.

    A reference that normalises to nothing matches only a prediction that does too, as in Router-R1's code. The data
    checks refuse such references.
    """
    said = normalise(prediction, rule)
    return float(any(normalise(each, rule) == said for each in references))


def token_f1(prediction: str, references: Sequence[str], rule: Rule = "squad") -> float:
    """Best token F1 over the references, in [0, 1]; 0.0 without references or shared tokens.

    `yes`, `no` and `noanswer` earn no partial credit, as in the HotpotQA scorer (arXiv 1809.09600).

    >>> round(token_f1("the old Paris", ["Paris", "London"]), 3)
    0.667
    """
    said = normalise(prediction, rule)
    return max((_f1(said, normalise(each, rule)) for each in references), default=0.0)


def contains(reply: str, references: Sequence[str], rule: Rule = "squad") -> float:
    """1.0 if a reference is part of `reply` as whole words, else 0.0.

    With the rule `text`, `yes` and `no` count only as the first or the last word of the reply: both words are part of
    many sentences that mean the opposite.

    >>> contains("The capital of France is Paris.", ["Paris"]), contains("It is Parisian.", ["Paris"])
    (1.0, 0.0)
    >>> contains("There is no doubt: yes.", ["no"], "text"), contains("答えは東京です。", ["東京"], "text")
    (0.0, 1.0)
    """
    said = normalise(reply, rule)
    wanted = {normalise(each, rule) for each in references} - {""}
    if rule == "text" and wanted & _YES_NO:
        ends = set(said.split()[:1] + said.split()[-1:])
        if ends & wanted & _YES_NO:
            return 1.0
        wanted -= _YES_NO
    return float(any(f" {each} " in f" {said} " for each in wanted))


def _f1(prediction: str, reference: str) -> float:
    if prediction != reference and {prediction, reference} & _NO_PARTIAL_CREDIT:
        return 0.0
    said, wanted = prediction.split(), reference.split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _tokens(text: str) -> list[str]:
    """Tokens by the rule `text`."""
    # Case folding can undo NFKC, so NFKC comes again behind it.
    apart = _FRACTION.sub(r" \1", _THIN_BLANK.sub("", text)).replace("İ", "i")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", apart).casefold())
    folded = _UNSPACED.sub(r" \1 ", folded.translate(_UNIFIED))
    tokens: list[str] = []
    end = 0
    for number in _NUMBER.finditer(folded):
        tokens += _words(folded[end : number.start()])
        tokens.append(_plain_number(number.group()))
        end = number.end()
    tokens += _words(folded[end:])
    while len(tokens) > 1 and tokens[0] in ("a", "an", "the"):
        del tokens[0]
    # "a" alone can be the letter of an option.
    return [] if tokens in (["the"], ["an"]) else tokens


def _words(text: str) -> list[str]:
    """Words of a stretch without numbers; punctuation ends a word, but for apostrophes and dots inside one."""
    kept: list[str] = []
    for place, char in enumerate(text):
        category = unicodedata.category(char)
        inside = place > 0 and text[place - 1].isalnum()
        if category == "Cf":  # a format character is invisible
            continue
        if char in "'.":
            if not inside or text[place - 1].isdecimal():  # a date or a version: 1.2.2010
                kept.append(" ")
        elif char in _AFTER_LETTER:
            kept.append(char if inside or kept[-1:] == [char] else " ")
        else:
            kept.append(
                " " if category[0] in "PZC" else f" {char} " if category[0] == "S" else char
            )
    # Without the dot between them, a letter and an accent become one character.
    words = unicodedata.normalize("NFKC", "".join(kept)).split()
    return [_plain_number(word) if word.isdecimal() else word for word in words]


def _plain_number(text: str) -> str:
    """One spelling for equal numbers.

    >>> [_plain_number(each) for each in ("1,000.0", "1.000,5", "007", "3,50", "-0", "1'000", ".5", "1.000.000")]
    ['1000', '1000.5', '7', '3.5', '0', '1000', '0.5', '1000000']
    """
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
    digits = digits.replace("'", "")
    if digits.count(",") > 1 or (digits.count(".") > 1 and "," not in digits):
        digits = digits.replace("." if digits.count(".") > 1 else ",", "")
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", digits):
        digits = digits.replace(",", "")
    whole, _, part = digits.replace(",", ".").partition(".")
    # Every script's digits count. One by one, because int() refuses more than 4,300 of them.
    whole, part = ("".join(str(int(digit)) for digit in each) for each in (whole, part))
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    number = f"{whole}.{part}" if part else whole
    return number if number == "0" else sign + number
