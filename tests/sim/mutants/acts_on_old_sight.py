"""Controllers act again before they see what they have done."""

import pytest

from kcore.controllers import pod
from kcore.reconcile import loop

FOUND_BY = "pod "


def plant(patch: pytest.MonkeyPatch) -> None:
    def impatient(self, job) -> bool:  # type: ignore[no-untyped-def]
        return bool(job.not_before <= self._clock.monotonic())

    learn = loop.Loop._learn

    def again(self, wishes) -> None:  # type: ignore[no-untyped-def]
        learn(self, wishes)
        job = wishes[0].job
        self._queue[job.controller, job.key] = job
        self.view.revision += 1

    patch.setattr(loop.Loop, "_is_due", impatient)
    patch.setattr(loop.Loop, "_learn", again)
    patch.setattr(pod, "still_wanted", lambda live: [])
