"""Options that several commands share, so that they are spelt and explained once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kcore.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def _take_namespace(context: click.Context, _: click.Parameter, value: str) -> None:
    if value:
        context.ensure_object(Session).namespace_option = value


def namespace(function: F) -> F:
    """`-n`, also after the command."""
    return click.option(
        "-n",
        "--namespace",
        expose_value=False,
        callback=_take_namespace,
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
