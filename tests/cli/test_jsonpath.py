"""JSONPath as kubectl's users write it."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.cli import jsonpath

VALUE = {
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "x"}, "n": 3, "ok": True},
    "items": [
        {"name": "a", "size": 1, "tags": ["p", "q"]},
        {"name": "b", "size": 5, "tags": []},
        {"name": "c", "on": False},
    ],
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.metadata.name}", "web"),
        (".metadata.name", "web"),
        ("{$.metadata.name}", "web"),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", "x"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "x"),
        ('{.metadata.labels["app.kubernetes.io/name"]}', "x"),
        ("{.metadata.n} {.metadata.ok}", "3 true"),
        ("{.metadata.labels}", '{"app.kubernetes.io/name":"x"}'),
        ("{.items[0].name}", "a"),
        ("{.items[-1].name}", "c"),
        ("{.items[0:2].name}", "a b"),
        ("{.items[*].name}", "a b c"),
        ("{.items[0].tags[*]}", "p q"),
        ("{..size}", "1 5"),
        ('{.items[?(@.name=="b")].size}', "5"),
        ("{.items[?(@.size>1)].name}", "b"),
        ("{.items[?(@.on)].name}", "c"),
        ("{.items[?(@.name!='b')].name}", "a c"),
        ("{.nothing.at.all}", ""),
        ("{.items[9].name}", ""),
        ('{range .items[*]}{.name}{"\\n"}{end}', "a\nb\nc\n"),
        ("{range .items[0:1]}{range .tags[*]}<{@}>{end}{end}", "<p><q>"),
        ("{range .nothing[*]}x{end}y", "y"),
        ("name: {.metadata.name}!", "name: web!"),
        ("{'{'}", "{"),
    ],
)
def test_templates(template: str, said: str) -> None:
    assert jsonpath.render(template, VALUE) == said


@pytest.mark.parametrize(
    "template",
    ["{.a", "{.a[}", "{.a[?(@.b==)]}", "{end}", "{range .a}", "{'x}", "{.a b}", "{.a[x]}", "}{"],
)
def test_what_cannot_be_read_is_refused(template: str) -> None:
    with pytest.raises(click.UsageError):
        jsonpath.render(template, VALUE)


@given(st.text("{}[]().*?@=<>!'\"\\ab0:-$ rangeend", max_size=30))
def test_any_template_is_filled_in_or_refused(template: str) -> None:
    try:
        jsonpath.render(template, VALUE)
    except click.UsageError:
        return
