"""The root of the command line: global options, the table of commands, what errors become.

Commands are imported when they are called. A command is a click command whose function is a
coroutine taking the `Session` first; `call` parses, awaits it and turns errors into words on stderr
and an exit code:

    0 done | 1 failed | 2 wrong usage | 3 not ready in time | 4 not authenticated or not allowed
    130 interrupted; `exec` passes on the command's own code
"""

import asyncio
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import redirect_stdout
from typing import Any, Final

import click

from kcore.cli import options
from kcore.cli.session import DENIED, FAILED, INTERRUPTED, USAGE, Exit, Session
from kcore.client import kubeconfig
from kcore.client.problem import Refused, meant
from kcore.wire.errors import ApiError, Reason

# By section: name, where it is, and its help in a line.
LAZY: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Objects": {
        "get": ("kcore.cli.get:get", "Show objects"),
        "describe": ("kcore.cli.describe:describe", "Show all about objects, with their events"),
        "edit": ("kcore.cli.edit:edit", "Change objects in an editor"),
        "apply": ("kcore.cli.apply:apply", "Make objects be as manifests say"),
        "diff": ("kcore.cli.diff:diff", "Show what applying manifests would change"),
        "create": ("kcore.cli.create:create", "Make new objects"),
        "expose": ("kcore.cli.expose:expose", "Make a service for the pods of an object"),
        "replace": ("kcore.cli.replace:replace", "Replace objects by those of manifests"),
        "patch": ("kcore.cli.patch:patch", "Change some fields of an object"),
        "set": ("kcore.cli.set:set_", "Set images, environments, resources"),
        "delete": ("kcore.cli.delete:delete", "Delete objects"),
        "label": ("kcore.cli.label:label", "Set and remove labels"),
        "annotate": ("kcore.cli.label:annotate", "Set and remove annotations"),
        "wait": ("kcore.cli.wait:wait", "Wait until objects are in a state"),
        "events": ("kcore.cli.events:events", "Show what happened"),
    },
    "Rolling out": {
        "scale": ("kcore.cli.scale:scale", "Set the number of replicas"),
        "rollout": ("kcore.cli.rollout:rollout", "Follow, undo, pause and restart a rollout"),
    },
    "Containers": {
        "logs": ("kcore.cli.logs:logs", "Show what containers wrote"),
        "exec": ("kcore.cli.exec:exec_", "Run a command in a container"),
        "attach": ("kcore.cli.attach:attach", "Join the main process of a container"),
        "debug": ("kcore.cli.debug:debug", "Add a container to a pod, to look at the others"),
        "port-forward": ("kcore.cli.port_forward:port_forward", "Lead ports here to a pod's"),
        "cp": ("kcore.cli.cp:cp", "Copy files to and from a container"),
    },
    "Nodes": {
        "cordon": ("kcore.cli.cordon:cordon", "Let no new pods come to nodes"),
        "uncordon": ("kcore.cli.cordon:uncordon", "Let pods come to nodes again"),
        "drain": ("kcore.cli.drain:drain", "Send all pods away from nodes"),
        "taint": ("kcore.cli.taint:taint", "Set and remove taints of nodes"),
    },
    "Cluster": {
        "up": ("kcore.cli.up:up", "Start a one-node cluster on this machine"),
        "down": ("kcore.cli.up:down", "Take it away without a trace"),
        "lab": ("kcore.cli.lab:lab", "Start a cluster of several nodes on this machine"),
        "check": ("kcore.cli.store:check", "Walk the log and name all that is damaged"),
        "store": ("kcore.cli.store:store", "Back up, restore and move a cluster's log"),
    },
    "About": {
        "api-versions": ("kcore.cli.about:api_versions", "List the groups of kinds"),
        "api-resources": ("kcore.cli.about:api_resources", "List the kinds"),
        "explain": ("kcore.cli.about:explain", "Show what a kind's fields mean"),
        "config": ("kcore.cli.config:config", "Show and change the kubeconfig"),
        "ctx": ("kcore.cli.context:ctx", "Show the contexts, or switch to one"),
        "ns": ("kcore.cli.context:ns", "Show the namespaces, or switch to one"),
        "auth": ("kcore.cli.auth:auth", "Show who you are and what you may do"),
        "cluster-info": ("kcore.cli.version:cluster_info", "Show where the cluster is"),
        "completion": ("kcore.cli.complete:completion", "Print what makes a shell complete"),
        "plugin": ("kcore.cli.plugin:plugin", "Show the programs that add commands"),
        "version": ("kcore.cli.version:version", "Show the versions of client and server"),
    },
}
_COMMANDS: Final = {name: entry for section in LAZY.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        command = _loaded(entry[0])
        if ctx.resilient_parsing:
            from kcore.cli import complete

            complete.attach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        wrong = args and not args[0].startswith("-") and args[0] not in known
        if wrong and not ctx.resilient_parsing:
            raise click.UsageError(f'there is no command "{args[0]}"{meant(args[0], known)}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in LAZY.items():
            with formatter.section(section):
                formatter.write_dl([(name, entry[1]) for name, entry in commands.items()])


@functools.cache
def _loaded(entry: str) -> click.Command:
    """The command that stands at `module:attribute`, with what all commands take."""
    module, _, attribute = entry.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return _spelt_out(_anywhere(command))


def _anywhere(command: click.Command) -> click.Command:
    """The command, taking the global options, too: hands write them last."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _anywhere(below)
    taken = {word for option in command.params for word in option.opts}
    for make in (options.context, options.config_path, options.namespace_anywhere, options.color):
        option = make()
        if taken.isdisjoint(option.opts):
            command.params.append(option)
    return command


def _spelt_out(command: click.Command) -> click.Command:
    """The command, taking `--wait=false` for `--no-wait` and `-o=yaml` for `-o yaml`: hands know
    them, and click does not.
    """
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _spelt_out(below)
    known = [option for option in command.params if isinstance(option, click.Option)]
    flags = {
        word: (option, word in option.secondary_opts)
        for option in known
        if option.is_flag
        for word in (*option.opts, *option.secondary_opts)
        if word.startswith("--")
    }
    short = {word for option in known if not option.is_flag for word in option.opts}
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        found: list[str] = []
        for at, argument in enumerate(args):
            if argument == "--":
                found += args[at:]
                break
            word, equals, value = argument.partition("=")
            if equals and len(word) == 2 and word in short:
                found += (word, value)
                continue
            if word not in flags or value not in ("true", "false"):
                found.append(argument)
                continue
            option, negative = flags[word]
            if (value == "true") != negative:
                found.append(option.opts[0])
            elif option.secondary_opts:
                found.append(option.secondary_opts[0])
        return parse(ctx, found)

    command.parse_args = parse_args  # type: ignore[method-assign]
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """kcore: Kubernetes distilled to one gRPC kernel."""


root.params += [
    options.context(hidden=False),
    options.config_path(hidden=False),
    options.namespace_anywhere(hidden=False),
    options.color(hidden=False),
]


def main() -> None:
    """The program: arguments of the process, its streams, its exit code."""
    session = Session()
    _plug_in()
    try:
        work = _start(sys.argv[1:], session)
        if inspect.iscoroutine(work):
            work = asyncio.run(_finish(work, session))
        code = work if isinstance(work, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        code = failed(error, session)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _plug_in() -> None:
    """Lets a plugin take this process's place; completes where the shell asks for it."""
    from kcore.cli import plugin

    if "_KCORE_COMPLETE" in os.environ:
        from kcore.cli import complete

        complete.attach(root)
        return
    words = plugin.find(sys.argv[1:], _COMMANDS, os.environ)
    if words:
        os.execv(words[0], words)


async def call(arguments: Sequence[str], session: Session) -> int:
    """Runs one command within a running loop; returns the exit code."""
    try:
        with redirect_stdout(session.stdout):
            work = _start(arguments, session)
        if inspect.iscoroutine(work):
            work = await _finish(work, session)
        return work if isinstance(work, int) else 0
    except Exception as error:
        return failed(error, session)


def _start(arguments: Sequence[str], session: Session) -> Any:
    session.line = tuple(arguments)
    return root.main(list(arguments), prog_name="kcore", standalone_mode=False, obj=session)


async def _finish(work: Coroutine[Any, Any, Any], session: Session) -> Any:
    try:
        return await work
    finally:
        await session.close()


def failed(error: BaseException, session: Session) -> int:
    """Says what went wrong; returns the exit code. What nobody foresaw is raised."""
    match error:
        case click.ClickException():
            context: Any = getattr(error, "ctx", None)
            session.say(f"error: {error.format_message()}")
            if context is not None:
                session.say(f"help: {context.command_path} --help")
            return USAGE
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case click.exceptions.Exit():
            return error.exit_code
        case Exit():
            if error.message:
                session.say(error.message)
            return error.code
        case Refused():
            session.say(str(error))
            return FAILED
        case kubeconfig.Unusable():
            session.say(f"error: {error}")
            return FAILED
        case ApiError():
            session.say(f"error: {error.message}")
            return code_of(error)
        case BrokenPipeError():
            return FAILED
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            # Of a command that does several things at once, the one that went wrong.
            return failed(error.exceptions[0], session)
        case _:
            raise error


def code_of(error: ApiError) -> int:
    """The exit code for an error of the server."""
    return DENIED if error.reason in (Reason.UNAUTHENTICATED, Reason.FORBIDDEN) else FAILED
