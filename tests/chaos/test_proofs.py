"""A short form of each proof; the figures are `make chaos`'s (see README.md here)."""

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.backing import BACKINGS

# These need no root, and little time.
_FAST = ("P7", "P8")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=pytest.mark.cluster if one not in _FAST else ())
        for one in chaos.SMALL
    ],
)
def test_holds(name: str) -> None:
    proof = chaos.run(chaos.SMALL[name], BACKINGS["sqlite"]())
    assert not proof.broken, str(proof)
