"""Fixtures that several folders share, and the mark of the tests that need a real machine.

Properties are tried with the same examples ever again in CI, with new ones elsewhere; how long an
example takes is nobody's business on a machine that others use. How many: tests/budget.py.
"""

from pathlib import Path

import hypothesis
import pytest

from tests import budget
from tests.machine import machine, space

__all__ = ["machine", "space"]

hypothesis.settings.register_profile(
    "kcore", deadline=None, derandomize=budget.CI, max_examples=budget.examples(100)
)
hypothesis.settings.load_profile("kcore")

CLUSTER = Path(__file__).parent / "cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in tests/cluster, or asks for a machine, is marked."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if CLUSTER in item.path.parents or "machine" in asked:
            item.add_marker(pytest.mark.cluster)
