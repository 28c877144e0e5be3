"""The report is made from the small evaluation of tests/evaluate."""

from tests.evaluate.conftest import stage

__all__ = ["stage"]
