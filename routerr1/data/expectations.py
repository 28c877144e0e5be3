"""Every expectation about the questions: its statement, and SQL that finds offending rows.

`{batch}` is the table of the suite (see `measure.py`). An expectation holds if the SQL finds no
row.
"""

from typing import Literal, NamedTuple

Suite = Literal["columns", "questions", "facts", "near", "sets", "drift"]


class Rule(NamedTuple):
    """One expectation.

    Attributes:
        suite: the suite it belongs to, which is also the name of the table it reads.
        says: what must hold, for people.
        offending: SQL that returns the rows that break it.
    """

    name: str
    suite: Suite
    says: str
    offending: str


_SHOWN = "SELECT dataset, split, id, question, golds FROM {batch} WHERE "


def rules(max_question_chars: int) -> tuple[Rule, ...]:
    """All expectations, in the order they are reported."""
    return (
        Rule(
            "schema",
            "columns",
            "every split file has exactly the columns and types of a question",
            "SELECT * FROM {batch}",
        ),
        Rule(
            "id_not_empty",
            "questions",
            "every row has an id",
            _SHOWN + "id IS NULL OR trim(id) = ''",
        ),
        Rule(
            "id_unique",
            "questions",
            "no id stands twice in a data set",
            _SHOWN + "(dataset, id) IN (SELECT dataset, id FROM {batch} WHERE trim(id) <> ''"
            " GROUP BY dataset, id HAVING count(*) > 1)",
        ),
        Rule(
            "question_not_empty",
            "questions",
            "every question has a letter or a digit",
            _SHOWN + "key IS NULL",
        ),
        Rule(
            "question_length",
            "questions",
            f"no question is longer than {max_question_chars} characters",
            _SHOWN + f"chars > {max_question_chars}",
        ),
        Rule(
            "question_unique",
            "questions",
            "no question stands twice in a split, whatever its case and punctuation",
            _SHOWN + "(key, split) IN (SELECT key, split FROM {batch} WHERE key IS NOT NULL"
            " GROUP BY key, split HAVING count(*) > 1)",
        ),
        Rule(
            "golds_not_empty",
            "questions",
            "every question has a gold answer",
            _SHOWN + "num_golds = 0",
        ),
        Rule(
            "golds_are_text",
            "questions",
            "every gold is a text, and not each a list written out as one",
            _SHOWN + "unusable_golds > 0",
        ),
        Rule(
            "golds_survive",
            "questions",
            "no gold normalises to nothing, which would match every empty answer",
            _SHOWN + "empty_golds > 0",
        ),
        Rule(
            "split_of_file",
            "questions",
            "every row lies in the file of its split",
            "SELECT dataset, split, id, file FROM {batch} WHERE split IS NULL"
            " OR file <> split || '.parquet'",
        ),
        Rule(
            "hops_positive",
            "questions",
            "hops are at least 1 where they are known",
            "SELECT dataset, split, id, hops FROM {batch} WHERE hops < 1",
        ),
        Rule(
            "metadata_object",
            "questions",
            "metadata is a JSON object",
            "SELECT dataset, split, id FROM {batch} WHERE NOT metadata_ok",
        ),
        Rule(
            "no_exact_overlap",
            "questions",
            "no question stands in two splits, whatever its case and punctuation",
            _SHOWN + "key IN (SELECT key FROM {batch} WHERE key IS NOT NULL"
            " GROUP BY key HAVING count(DISTINCT file) > 1)",
        ),
        Rule(
            "no_fact_overlap",
            "facts",
            "no fact is asked in two splits, by itself or as a hop",
            "SELECT fact, count(DISTINCT split) AS splits FROM {batch}"
            " GROUP BY fact HAVING count(DISTINCT split) > 1",
        ),
        Rule(
            "no_near_overlap",
            "near",
            "no training question is a near-duplicate of a held-out one",
            "SELECT * FROM {batch}",
        ),
        Rule(
            "row_counts",
            "sets",
            "every data set has as many rows in each split as params say",
            "SELECT dataset, split, rows, wanted FROM {batch} WHERE rows <> wanted"
            " OR (wanted IS NULL AND rows = 0)",
        ),
        Rule(
            "splits_not_empty",
            "sets",
            "train, validation and test each hold a question",
            "SELECT split, sum(rows) AS rows FROM {batch} GROUP BY split HAVING sum(rows) = 0",
        ),
        Rule(
            "leakage",
            "sets",
            "the share of questions that hold their gold word for word is under its limit",
            "SELECT dataset, split, leaks, leakage, max_leakage FROM {batch}"
            " WHERE leakage > max_leakage",
        ),
        Rule(
            "length_drift",
            "drift",
            "question lengths are spread as in the last accepted data",
            "SELECT * FROM {batch} WHERE measure = 'question_length' AND distance > max_distance",
        ),
        Rule(
            "answer_type_drift",
            "drift",
            "kinds of answers are spread as in the last accepted data",
            "SELECT * FROM {batch} WHERE measure = 'answer_type' AND distance > max_distance",
        ),
        Rule(
            "topic_drift",
            "drift",
            "topics are spread as in the last accepted data",
            "SELECT * FROM {batch} WHERE measure = 'topic' AND distance > max_distance",
        ),
    )


NUM_RULES = (
    21  # asserted before and after a run: a suite that loses an expectation passes all the same
)
