"""The witness itself: good histories pass, each known-bad one is named."""

from dataclasses import replace

import pytest

from kcore.kernel.record import Key, Record, Verb
from tests.chaos.history import History, Outcome, Read, Write
from tests.chaos.witness import check

A = Key("k.A", "default", "a")
B = Key("k.A", "default", "b")
ME = "me"


def record(revision: int, key: Key, verb: Verb, request: str, **more: object) -> Record:
    made = Record(revision, key, f"uid-{key.name}", verb, f"{key.name}@{revision}".encode(), ME, 0,
                  float(revision), request, ME)  # fmt: skip
    return made._replace(**more)  # type: ignore[arg-type]


def write(request: str, sent: float, revision: int, *keys: Key, **more: object) -> Write:
    guards: dict[Key, int | None] = dict.fromkeys(keys)
    made = Write(request, guards, sent, sent + 0.5, Outcome.OK, revision)
    return replace(made, **more)  # type: ignore[arg-type]


def read(sent: float, revision: int, found: dict[Key, bytes], **more: object) -> Read:
    made = Read("k.A", "default", None, sent, sent + 0.5, revision, found)
    return replace(made, **more)  # type: ignore[arg-type]


def good() -> tuple[list[Record], History]:
    """Four writes, of which one failed and one is unknown, and reads of each sort."""
    log = [
        record(1, A, Verb.CREATE, "w1"),
        record(2, A, Verb.UPDATE, "w2"),
        record(2, B, Verb.CREATE, "w2", ordinal=1),
        record(3, A, Verb.DELETE, "w3"),
        record(4, B, Verb.UPDATE, "w4"),
    ]
    history = History(
        [
            write("w1", 1.0, 1, A),
            write("w2", 2.0, 2, A, B, keys={A: 1, B: None}),
            write("w3", 3.0, 3, A, outcome=Outcome.UNKNOWN),
            write("w4", 4.0, 4, B),
            write("w5", 4.0, 0, A, outcome=Outcome.FAILED, said="conflict"),
            write("w6", 4.0, 0, A, outcome=Outcome.UNKNOWN),
            write("w7", 5.0, 4, B, changed=False),
        ],
        [
            read(2.6, 2, {A: b"a@2", B: b"b@2"}),
            read(6.0, 4, {B: b"b@4"}),
            read(6.0, 0, {}, name="a"),
            read(6.0, 4, {B: b"b@4"}, name="b"),
            read(6.0, 4, {A: b"a@1"}, at=1),
        ],
    )
    return log, history


def test_a_good_history_passes() -> None:
    log, history = good()
    assert check(log, history, ME) == []


def test_what_others_write_is_not_the_historys() -> None:
    log, history = good()
    log.append(record(5, B, Verb.UPDATE, "", manager="somebody"))
    assert check(log, history, ME) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda log, h: log.pop(4), "w4 was acknowledged at 4 and is not there: lost"),
        (lambda log, h: log.pop(2), "only"),
        (lambda log, h: log.append(record(5, B, Verb.UPDATE, "w4")), "more than once"),
        (lambda log, h: log.append(record(5, A, Verb.CREATE, "w5")), "w5 failed"),
        (lambda log, h: log.append(record(5, B, Verb.UPDATE, "zz")), "is nobody's"),
        (lambda log, h: log.append(record(6, B, Verb.UPDATE, "w6")), "revision 6 follows 4"),
        (lambda log, h: log.append(record(4, B, Verb.UPDATE, "w6")), "after"),
        (lambda log, h: log.append(record(5, B, Verb.CREATE, "w6")), "but it was there"),
        (lambda log, h: log.append(record(5, A, Verb.UPDATE, "w6")), "but there was None"),
        (lambda log, h: log.append(record(5, B, Verb.UPDATE, "w6", uid="x")), "but there was"),
        (lambda log, h: log.append(record(5, B, Verb.UPDATE, "w6", time=3.0)), "time goes back"),
        (lambda log, h: log.append(record(5, B, Verb.UPDATE, "w6", because=5)), "because of 5"),
        (lambda log, h: h.writes.append(write("w8", 9.0, 3, B)), "4 had returned before"),
        (lambda log, h: h.writes.append(write("w8", 9.0, 4, B)), "4 had returned before"),
        (lambda log, h: h.reads.append(read(9.0, 3, {B: b"b@2"})), "4 had returned before"),
        (lambda log, h: h.reads.append(read(9.0, 4, {B: b"b@2"})), "as the log does not"),
        (lambda log, h: h.reads.append(read(9.0, 4, {})), "as the log does not"),
        (lambda log, h: h.reads.append(read(9.0, 4, {}, at=2)), "as the log does not"),
        (lambda log, h: h.reads.append(read(9.0, 0, {}, name="b")), "was not found, but"),
        (lambda log, h: h.writes[1].keys.update({A: 7}), "guarded by k.A/default/a at 7"),
        (lambda log, h: setattr(h.writes[0], "revision", 9), "was acknowledged at 9"),
        (lambda log, h: setattr(h.writes[0], "changed", False), "said to change nothing"),
    ],
)  # fmt: skip
def test_a_bad_history_is_named(spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    log, history = good()
    spoil(log, history)
    complaints = check(log, history, ME)
    assert any(said in one for one in complaints), complaints


def test_a_read_that_found_nothing_may_have_been_before_or_after() -> None:
    log, history = good()
    # While w3 (the deletion) was under way, and between it and a later creation.
    history.reads.append(read(3.1, 0, {}, name="a"))
    log.append(record(5, A, Verb.CREATE, "w8"))
    history.writes.append(write("w8", 7.0, 5, A))
    history.reads.append(read(7.1, 0, {}, name="a"))
    assert check(log, history, ME) == []
    history.reads.append(read(8.0, 0, {}, name="a"))
    assert "was not found" in check(log, history, ME)[0]
