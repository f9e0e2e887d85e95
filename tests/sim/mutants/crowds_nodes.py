"""A daemon set does not see pods that are on their way out."""

import pytest

from kcore.controllers import daemonset

FOUND_BY = "is one more for"


def plant(patch: pytest.MonkeyPatch) -> None:
    places = daemonset._places

    def blind(*args):  # type: ignore[no-untyped-def]
        found = places(*args)
        for place in found.values():
            place.going.clear()
        return found

    patch.setattr(daemonset, "_places", blind)
