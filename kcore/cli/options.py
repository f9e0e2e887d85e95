"""Options that several commands share, so that they are spelt and explained once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kcore.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def _take(setting: str) -> Callable[[click.Context, click.Parameter, str], None]:
    def take(context: click.Context, _: click.Parameter, value: str) -> None:
        if value:
            setattr(context.ensure_object(Session), setting, value)

    return take


def _global(setting: str, *words: str, **more: Any) -> click.Option:
    """An option that is the same for all commands: it sets something of the session."""
    return click.Option(words, expose_value=False, callback=_take(setting), **more)


def context(*, hidden: bool = True) -> click.Option:
    """`--context`."""
    return _global("context", "--context", hidden=hidden, help="Context of the kubeconfig to use.")


def config_path(*, hidden: bool = True) -> click.Option:
    """`--kubeconfig`."""
    return _global("config_path", "--kubeconfig", hidden=hidden, help="The kubeconfig file to use.")


def color(*, hidden: bool = True) -> click.Option:
    """`--color`."""
    return _global(
        "color",
        "--color",
        hidden=hidden,
        type=click.Choice(["auto", "always", "never"]),
        help="When to write colour.",
    )


def namespace_anywhere(*, hidden: bool = True) -> click.Option:
    """`-n`, where it means nothing, too."""
    return _global(
        "namespace_option", "-n", "--namespace", hidden=hidden, help="Namespace to work in."
    )


def namespace(function: F) -> F:
    """`-n`, of commands that work in a namespace."""
    return click.option(
        "-n",
        "--namespace",
        expose_value=False,
        callback=_take("namespace_option"),
        help="Namespace to work in.",
    )(function)


def everywhere(function: F) -> F:
    """`-A`."""
    return click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")(function)


def selector(function: F) -> F:
    """`-l`."""
    return click.option(
        "-l", "--selector", "labels", default="", help="Only with these labels: app=web,!old."
    )(function)


def field_selector(function: F) -> F:
    """`--field-selector`."""
    return click.option(
        "--field-selector",
        "fields",
        default="",
        help="Only with these fields: status.phase=Running.",
    )(function)


def filenames(function: F) -> F:
    """`-f` and `-R`."""
    function = click.option(
        "-R", "--recursive", is_flag=True, help="Also directories below directories."
    )(function)
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        help="File, directory, or - for standard input; may be repeated.",
    )(function)


def dry_run(function: F) -> F:
    """`--dry-run`."""
    return click.option(
        "--dry-run",
        type=click.Choice(["none", "client", "server"]),
        default="none",
        help="Change nothing: check here, or on the server.",
    )(function)


def output(function: F) -> F:
    """`-o`."""
    return click.option("-o", "--output", "form", default="", help="name, yaml, json, jsonpath=….")(
        function
    )


def manager(function: F) -> F:
    """`--field-manager`."""
    return click.option(
        "--field-manager", "manager", default="kcore", help="Who owns the fields that are set."
    )(function)


def subresource(function: F) -> F:
    """`--subresource`."""
    return click.option(
        "--subresource", default="", help="Write through this door: status, scale."
    )(function)


class Seconds(click.ParamType[float]):
    """A span: 30, 30s, 5m, 1h30m."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The span in seconds."""
        import re

        if isinstance(value, int | float):
            return float(value)
        units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            return float(value)
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", value)
        if not parts or "".join(n + u for n, u in parts) != value:
            self.fail(f'"{value}" is not a span such as 30s, 5m or 1h30m', param, ctx)
        return sum(float(number) * units[unit] for number, unit in parts)


SECONDS = Seconds()
