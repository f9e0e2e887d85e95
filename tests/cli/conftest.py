"""What the command line's tests share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.cluster import Run, cluster


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """The command line on a kernel of its own."""
    async with cluster(tmp_path) as running:
        yield running
