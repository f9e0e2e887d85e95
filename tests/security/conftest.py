"""One apiserver for all attacks: what one leaves behind, the next ones find."""

from collections.abc import Iterator

import pytest

from tests.security.server import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The apiserver that is attacked."""
    with running(tmp_path_factory.mktemp("attacked")) as made:
        yield made
