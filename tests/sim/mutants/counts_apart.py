"""A job's count is one step, and taking the finalizers off what was counted are others."""

from dataclasses import replace

import pytest

from kcore.controllers import job

FOUND_BY = "has counted"


def plant(patch: pytest.MonkeyPatch) -> None:
    whole = job.reconcile

    def apart(view, key, now):  # type: ignore[no-untyped-def]
        result = whole(view, key, now)
        steps = []
        for step in result.transactions:
            if len(step.operations) > 1 and step.operations[0].subresource == "status":
                steps += [type(step)(operations=[one]) for one in step.operations]
            else:
                steps.append(step)
        return replace(result, transactions=tuple(steps))

    patch.setattr(job, "CONTROLLER", replace(job.CONTROLLER, reconcile=apart))
