"""Documents: scalars as Kubernetes reads them, hostile text refused fast, places known."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.client import document
from tests import budget


def plain(text: str) -> Any:
    (read,) = document.read(text, "x.yaml")
    assert read.problems == []
    return read.plain


def problems(text: str) -> list[str]:
    return [
        f"{place.line}:{place.column}: {problem}"
        for read in document.read(text, "x.yaml")
        for problem, place in read.problems
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0400", 256),
        ("0o400", 256),
        ("0x1F", 31),
        ("0b101", 5),
        ("1_000", 1000),
        ("-12", -12),
        ("+12", 12),
        ("08", 8.0),
        ("1.50", 1.5),
        ("12e6", 12e6),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("yes", True),
        ("On", True),
        ("OFF", False),
        ("~", None),
        ("null", None),
        ("y", "y"),
        ("n", "n"),
        ("yEs", "yEs"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("10.0.0.1", "10.0.0.1"),
        ("1.2.3", "1.2.3"),
        ("100m", "100m"),
        ("=", "="),
        ("'yes'", "yes"),
        ('"0400"', "0400"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("!!float 3", 3.0),
        ("1__2", 12),
        ("0_", "0_"),
        ("-", None),
        ("0x", "0x"),
        ("1e", "1e"),
        ("٣", "٣"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    made = plain(f"v: {text}\n") if text != "-" else {"v": None}
    assert made == {"v": value}
    assert type(made["v"]) is type(value) or isinstance(made["v"], type(value))


def test_forms_that_files_have() -> None:
    assert plain("\ufeffa: 1\r\nb:\r\n- x\r\n") == {"a": 1, "b": ["x"]}
    assert plain("{apiVersion: v1, spec: {a: [1, 2,], },}") == {
        "apiVersion": "v1",
        "spec": {"a": [1, 2]},
    }
    assert plain('{"a":\t[1.5, "\\ud83d\\ude00", null, true]}') == {"a": [1.5, "😀", None, True]}
    assert plain("8080: a\non: b\n") == {"8080": "a", "on": "b"}
    assert plain("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
    texts = "---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n"
    assert [d.plain for d in document.read(texts, "x")] == [None, {"a": 1}, None, {"b": 2}]
    assert [d.plain for d in document.read('{"a":1}\n{"b":2}', "x")] == [{"a": 1}, {"b": 2}]
    assert [d.plain for d in document.read("", "x")] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", ["3:1: a: duplicate key, first on line 1"]),
        ('{"a": {"b": 1, "b": 2}}', ["1:16: a.b: duplicate key, first on line 1"]),
        ("a: [\n", ["2:1: did not find expected node content (while parsing a flow node)"]),
        ("a: !foo x\n", ["1:4: a: unknown tag '!foo'"]),
        ("a: !!int x\n", ["1:4: a: 'x' is not what the tag !!int says"]),
        ("? [a]\n: b\n", ["1:3: a key must be a string"]),
        ("~: b\n", ["1:1: a key must not be null"]),
        ("a: &x [*x]\n", ["1:4: a[0]: an alias stands inside what it stands for"]),
        ("a: {<<: 3}\n", ["1:9: a: only a mapping can be merged with <<"]),
        ("a: \x00\n", ["1:4: character 0 is not allowed here"]),
    ],
)
def test_what_is_wrong_has_a_place(text: str, said: list[str]) -> None:
    assert problems(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 50_000 + "x",
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)),
        "a0: &a0 {x: " + "y" * 50_000 + "}\n" + "".join(f"b{i}: *a0\n" for i in range(5000)),
        "a0: &a0 {x0: 1}\n"
        + "".join(
            f"a{i}: &a{i} {{x: *a{i - 1}, <<: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 60)
        ),
    ],
)
def test_bombs_are_refused_at_once(text: str) -> None:
    since = time.perf_counter()
    assert problems(text)
    assert time.perf_counter() - since < 0.5


def test_places() -> None:
    text = "a:\n  - b: 1\n    c.d/e: [x, 'y z']\n"
    (read,) = document.read(text, "x.yaml")

    def at(path: tuple[str | int, ...], at_key: bool = False) -> tuple[int, int, int]:
        place = read.place(path, at_key)
        return place.line, place.column, place.length

    assert at(("a", 0, "b")) == (2, 8, 1)
    assert at(("a", 0, "b"), at_key=True) == (2, 5, 1)
    assert at(("a", 0, "c.d/e", 1)) == (3, 16, 5)
    # What is absent is shown at what lacks it.
    assert at(("a", 0, "zzz")) == (2, 5, 1)
    assert at(("zzz",)) == (1, 1, 1)
    assert read.path("a[0].c.d/e[1]") == ("a", 0, "c.d/e", 1)
    assert read.path("a[0][c.d/e][1]") == ("a", 0, "c.d/e", 1)
    assert read.path("a[0].b.more") == ("a", 0, "b")
    assert read.path("nothing") == ()


def test_excerpts() -> None:
    (read,) = document.read("a:\n\tb: 1\n".replace("\t", "  "), "x.yaml")
    assert document.excerpt(read, read.place(("a", "b"))) == " 2 |   b: 1\n   |      ^"
    (read,) = document.read("{a: 日本, b: oops\x1b}".replace("\x1b", ""), "x.yaml")
    assert document.excerpt(read, read.place(("b",))) == (
        " 1 | {a: 日本, b: oops}\n   |              ^^^^"
    )
    long = "{" + ", ".join(f"k{i}: {i}" for i in range(200)) + "}"
    (read,) = document.read(long, "x.json")
    line, caret = document.excerpt(read, read.place(("k150",))).splitlines()
    assert len(line) < 140
    assert line[caret.index("^") :].startswith("150")


@settings(max_examples=budget.examples(300))
@given(st.text(max_size=60) | st.text("ab:-{}[]&*!|>'\"#%@,? \n\t0<", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in document.read(text, "x.yaml"):
        for problem, place in read.problems:
            assert problem.message
            document.excerpt(read, place)
