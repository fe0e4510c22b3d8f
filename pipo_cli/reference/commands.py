"""Every command as Markdown, read from the command tree that `pipo` itself runs."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from pipo_cli.app import app
from pipo_cli.reference.markdown import anchor, code, plain, table, value

_EXAMPLE = re.compile(r"(pipo .*?)(?: \(([^()]*)\))?\.?$")
_FORM = re.compile(r"<(?:list\[)?([^<>\[\]]+)\]?>")
_FORMS = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER"}


def command_reference() -> str:
    """Return the list of commands, then a section for each."""
    found = list(commands())
    listing = table(
        ["command", "does"],
        [[f"[{code(path)}](#{anchor(path)})", plain(_sentence(command))] for path, command in found[1:]],
    )
    return "\n".join([f"## Commands\n\n{listing}", *(_section(path, command) for path, command in found)])


def commands() -> Iterator[tuple[str, Any]]:
    """Yield `pipo` and all its commands by the words that call them; a group comes before its commands."""
    yield from _below("pipo", typer.main.get_command(app))


def examples(epilog: str) -> list[tuple[str, str]]:
    """Return the command lines of an epilog such as `Examples: pipo a; pipo b (why).`, each with its remark."""
    head, _, rest = epilog.partition(": ")
    if head not in ("Example", "Examples"):
        return []
    found = [_EXAMPLE.match(part) for part in rest.split("; ")]
    return [(match[1], match[2] or "") for match in found if match]


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if command.hidden:
        return
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _below(f"{path} {name}", inner)


def _section(path: str, command: Any) -> str:
    parts = [f"## {path}", command.help.strip(), f"```text\n{_usage(path, command)}\n```"]
    shown = [(line, f"  # {remark}" if remark else "") for line, remark in examples(command.epilog or "")]
    if shown:
        parts.append("Examples:" if len(shown) > 1 else "Example:")
        parts.append("```\n" + "\n".join(line + remark for line, remark in shown) + "\n```")
    with typer.Context(command, info_name=path) as ctx:
        parameters = [item for item in command.params if not item.hidden]
        arguments = [item for item in parameters if item.param_type_name == "argument"]
        options = [item for item in parameters if item.param_type_name == "option"]
        parts.append(table(["argument", "needed", "meaning"], [_argument_row(item) for item in arguments]).strip())
        parts.append(table(["option", "default", "meaning"], [_option_row(item, ctx) for item in options]).strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _sentence(command: Any) -> str:
    """Return the first sentence or line of a command's help."""
    return str(command.help.strip().partition("\n")[0])


def _usage(path: str, command: Any) -> str:
    words = [path, "[OPTIONS]"]
    for item in command.params:
        if item.param_type_name == "argument" and not item.hidden:
            name = item.metavar or item.name.upper()
            words.append((name if item.required else f"[{name}]") + ("..." if item.nargs != 1 else ""))
    return " ".join([*words, *(["COMMAND"] if hasattr(command, "commands") else [])])


def _argument_row(item: Any) -> list[str]:
    name = item.metavar or item.name.upper()
    return [code(name + ("..." if item.nargs != 1 else "")), "yes" if item.required else "no", plain(item.help)]


def _option_row(item: Any, ctx: Any) -> list[str]:
    # The record's first half is `-x, --name <form of the value>`.
    name = _FORM.sub(_form, item.get_help_record(ctx)[0])
    given = item.default is not None and not item.is_flag
    meaning = [plain(item.help), *_limits(item), *(["May be given several times."] if item.multiple else [])]
    return [code(name), code(value(getattr(item.default, "value", item.default))) if given else "", " ".join(meaning)]


def _form(match: re.Match[str]) -> str:
    return _FORMS.get(match[1], match[1])


def _limits(item: Any) -> Iterator[str]:
    low, high = getattr(item, "min", None), getattr(item, "max", None)
    if low is not None and high is not None:
        yield f"From {low:g} to {high:g}."
    elif low is not None:
        yield f"At least {low:g}."
