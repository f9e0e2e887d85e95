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


# What the documentation of kubectl shows, in its own words and on its own values.
LIST = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {
                "capacity": {"cpu": "4"},
                "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}],
            },
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {
                "capacity": {"cpu": "8"},
                "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"},
                    {"type": "another", "address": "127.0.0.3"},
                ],
            },
        },
    ],
    "users": [
        {"name": "myself", "user": {}},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}},
    ],
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        (
            "{.items[*]['metadata.name', 'status.capacity']}",
            '127.0.0.1 127.0.0.2 {"cpu":"4"} {"cpu":"8"}',
        ),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        (
            "{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}",
            '[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] ',
        ),
        ('{range .items[*]}{.metadata.name}{"\\t"}{end}', "127.0.0.1\t127.0.0.2\t"),
        ("{.items[*].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
        ("{.items[*].metadata.labels['kubernetes\\.io/hostname']}", "127.0.0.1"),
        ("{.items[0]['kind','metadata.name']}", "None 127.0.0.1"),
        ("{.users[0,1].name}", "myself e2e"),
        ("{.users[-1:].name}", "e2e"),
        ("{.items[0:2:2].metadata.name}", "127.0.0.1"),
        ("{..addresses[?(@.type=='another')].address}", "127.0.0.3"),
        # Nodes with an address of a type: a filter within a filter.
        ('{.items[?(@.status.addresses[?(@.type=="another")])].metadata.name}', "127.0.0.2"),
        (
            '{.items[?(@.status.addresses[?(@.type=="another")].address=="127.0.0.3")]'
            ".metadata.name}",
            "127.0.0.2",
        ),
        (
            "{range .items[*]}{@.metadata.name}:{range @.status.addresses[*]}{@.type}"
            '{"="}{@.address};{end}{"\\n"}{end}',
            "127.0.0.1:LegacyHostIP=127.0.0.1;\n"
            "127.0.0.2:LegacyHostIP=127.0.0.2;another=127.0.0.3;\n",
        ),
    ],
)
def test_the_examples_of_kubectls_documentation(template: str, said: str) -> None:
    assert jsonpath.render(template, LIST) == said
