"""Fixtures of the tests of judged programs."""

from tests.verify.judging import isolated, isolation

__all__ = ["isolated", "isolation"]
