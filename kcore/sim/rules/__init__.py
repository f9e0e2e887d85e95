"""What must hold of each kind of workload, one file each.

A rule is a function from (world before, record, old, new) to complaints, as in `invariants`. Rules
judge what kcore does by its own act, by what it could see when it decided: `because` says when.
"""

from collections.abc import Callable

from kcore.sim.rules import budget, cronjob, daemonset, endpoints, job, statefulset
from kcore.sim.rules.job import Rule


def every(ended: Callable[[str], int | None]) -> tuple[Rule, ...]:
    """All of them, for one world; `ended` is with which code a pod's container ended, by uid."""
    return (
        statefulset.made_in_order,
        statefulset.taken_in_order,
        daemonset.one_each,
        job.Ledger(),
        job.ends_done,
        job.truly(ended),
        cronjob.Diary(),
        cronjob.alone,
        budget.kept,
        budget.not_below,
        endpoints.only_ready,
    )
