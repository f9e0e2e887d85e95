"""Fixtures that several folders share, and the mark of the tests that need a real machine."""

from pathlib import Path

import pytest

from tests.machine import machine, space

__all__ = ["machine", "space"]

CLUSTER = Path(__file__).parent / "cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in tests/cluster, or asks for a machine, is marked."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if CLUSTER in item.path.parents or "machine" in asked:
            item.add_marker(pytest.mark.cluster)
