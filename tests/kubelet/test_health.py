"""What probes find, row by row."""

from typing import Any

import pytest
from kcore_api.kcore.core.v1 import container_pb2, container_status_pb2

from kcore.kubelet import health


def spec(text: str) -> container_pb2.Container:
    """A container: "hook startup=2 liveness readiness=1/2", failures and successes that count."""
    made = container_pb2.Container(name="a")
    for word in text.split():
        if word == "hook":
            made.lifecycle.post_start.sleep.seconds = 1
            continue
        kind, _, numbers = word.partition("=")
        probe = getattr(made, f"{kind}_probe")
        probe.handler.tcp_socket.port.int_val = 80
        failures, _, successes = numbers.partition("/")
        if failures:
            probe.failure_threshold = int(failures)
        if successes:
            probe.success_threshold = int(successes)
    return made


def shown(one: health.Health) -> str:
    """As status shows it: `!` started, `+` ready; "-" before it has begun, and its sentence."""
    flags = ("!" if one.started else "") + ("+" if one.ready else "")
    return ("" if one.begun else "-") + flags + (f" {one.sentence.why}" if one.sentence else "")


# What it is about | the container | answers: probe's letter and sign | the health after all.
Row = tuple[str, str, str, str]

ROWS: list[Row] = [
    ("no probe: ready when it runs", "", "", "!+"),
    ("it has not begun", "hook", "", "-"),
    ("it has", "hook", "b", "!+"),
    ("it has, and is asked", "hook readiness", "b", "!"),
    ("readiness: not yet", "readiness", "", "!"),
    ("readiness: one success", "readiness", "r+", "!+"),
    ("readiness: two are asked for", "readiness=3/2", "r+", "!"),
    ("readiness: two in a row", "readiness=3/2", "r+ r+", "!+"),
    ("readiness: two not in a row", "readiness=3/2", "r+ r- r+", "!"),
    ("readiness: two failures do not count", "readiness", "r+ r- r-", "!+"),
    ("readiness: three do", "readiness", "r+ r- r- r-", "!"),
    ("readiness: it comes back", "readiness=1", "r+ r- r+", "!+"),
    ("liveness: good until shown bad", "liveness", "", "!+"),
    ("liveness: two failures do not count", "liveness", "l- l-", "!+"),
    ("liveness: three do", "liveness", "l- l- l-", "! Container a failed liveness probe"),
    ("liveness: three not in a row", "liveness", "l- l- l+ l-", "!+"),
    ("startup: not yet", "startup", "", ""),
    ("startup: failures that do not count", "startup=30", "s- s- s- s-", ""),
    ("startup: it has started", "startup", "s- s+", "!+"),
    ("startup: it never does", "startup=2", "s- s-", " Container a failed startup probe"),
    ("startup, then readiness", "startup readiness", "s+", "!"),
    ("… is asked", "startup readiness", "s+ r+", "!+"),
]


@pytest.mark.parametrize(("container", "answers", "after"), [row[1:] for row in ROWS],
                         ids=[row[0] for row in ROWS])  # fmt: skip
def test_what_answers_make(container: str, answers: str, after: str) -> None:
    one = spec(container)
    now = health.fresh(one)
    tallies: dict[str, health.Tally] = {}
    for word in answers.split():
        if word == "b":
            now = health.begin(one, now)
            continue
        kind = next(kind for kind in health.KINDS if kind.startswith(word[0]))
        assert kind in health.due(one, now, ending=False)
        tallies[kind] = health.count(tallies.get(kind, health.Tally()), word[1] == "+")
        now = health.found(one, kind, now, tallies[kind])
    assert shown(now) == after


DUE: list[tuple[str, str, dict[str, Any], bool, tuple[str, ...]]] = [
    ("startup comes first", "startup liveness readiness", {"started": False}, False, ("startup",)),
    ("then the others", "startup liveness readiness", {}, False, ("liveness", "readiness")),
    ("none before the hook", "startup liveness", {"begun": False, "started": False}, False, ()),
    ("the pod ends: only readiness", "liveness readiness", {}, True, ("readiness",)),
    ("it ends before it started", "startup readiness", {"started": False}, True, ()),
    ("it is condemned", "liveness readiness", {"sentence": health.Sentence("")}, False, ()),
    ("there is none", "", {}, False, ()),
]


@pytest.mark.parametrize(("container", "state", "ending", "kinds"), [row[1:] for row in DUE],
                         ids=[row[0] for row in DUE])  # fmt: skip
def test_which_probes_are_due(
    container: str, state: dict[str, Any], ending: bool, kinds: tuple[str, ...]
) -> None:
    assert health.due(spec(container), health.Health(**state), ending=ending) == kinds


def test_a_probe_may_bring_its_own_grace() -> None:
    one = spec("liveness=1")
    one.liveness_probe.termination_grace_period_seconds = 7
    after = health.found(one, "liveness", health.fresh(one), health.Tally(False, 1))
    assert after.sentence == health.Sentence("Container a failed liveness probe", 7)


@pytest.mark.parametrize(
    ("started", "ready", "after"),
    [(True, True, "!+"), (True, False, "!"), (False, False, "")],
)
def test_a_new_kubelet_goes_on_from_what_was_said(started: bool, ready: bool, after: str) -> None:
    said = container_status_pb2.ContainerStatus(started=started, ready=ready)
    assert shown(health.recalled(spec("hook startup readiness"), said)) == after
    # Nobody has said anything of it: all of it is still to be done.
    assert shown(health.recalled(spec("hook startup readiness"), None)) == "-"
