"""A short form of each proof; the figures are `make chaos`'s (see README.md here)."""

import os

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.backing import BACKINGS
from tests.kernel import etcd_server

# These need no root, and little time.
_FAST = ("P6", "P7", "P8")


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


@pytest.mark.skipif(not etcd_server.there(), reason="etcd is not installed")
@pytest.mark.skipif("KCORE_STORMS" not in os.environ, reason="takes a while: set KCORE_STORMS")
@pytest.mark.parametrize("name", ["P7", "P8"])
def test_holds_on_etcd(name: str) -> None:
    proof = chaos.run(chaos.SMALL[name], BACKINGS["etcd"]())
    assert not proof.broken, str(proof)
