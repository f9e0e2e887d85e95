"""An endpoint that is terminating and still serves is called ready."""

import pytest

from kcore.controllers import endpoints

FOUND_BY = "leads to"


def plant(patch: pytest.MonkeyPatch) -> None:
    made = endpoints._endpoint

    def kept(*args):  # type: ignore[no-untyped-def]
        endpoint = made(*args)
        endpoint.conditions.ready |= endpoint.conditions.serving
        return endpoint

    patch.setattr(endpoints, "_endpoint", kept)
