"""Checks documents against the code: links, `pipo` command lines, recipe keys, printed messages."""

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipo_cli.options import is_change
from pipo_cli.reference.commands import commands
from pipo_cli.reference.markdown import anchor
from pipo_core.errors import PipoError
from pipo_core.recipes.catalog import find_name
from pipo_core.recipes.kinds import KINDS
from pipo_core.recipes.load import known_model, load_recipe
from pipo_core.recipes.locate import find_recipe, shipped_recipes
from pipo_core.recipes.schema import dotted_keys
from pipo_core.recipes.suites import find_suites

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"\.(py|md|txt|log|jsonl?|yaml)$")
_BEFORE_MESSAGE = re.compile(r"^\s*(pipo: |try: |warning: )?(\S+:\d+: )?")
_MESSAGE_LETTERS = 10  # a template with fewer fixed characters would fit anything


def blocks(text: str, language: str = "") -> list[str]:
    """The contents of fenced blocks of one language; those without one hold commands and what they print."""
    return [match[2] for match in _FENCE.finditer(text) if match[1] == language]


def inline_code(text: str) -> list[str]:
    return [code.replace("\\|", "|") for code in _INLINE.findall(_FENCE.sub("", text))]


# ------------------------------------------------------------------ tables and lists


def broken_lines(text: str) -> list[str]:
    """Lines of tables with another number of cells than their header, and items that run on behind another one."""
    broken: list[str] = []
    header = 0
    for line in _FENCE.sub("", text).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", _INLINE.sub("", line)))
        if not line.startswith("|"):
            if header and line and cells:
                broken.append(line)
            header = 0
        elif header == 0:
            header = cells
        elif cells != header:
            broken.append(line)
        broken += [line] if re.search(r"\. - \*\*", line) else []
    return broken


# ------------------------------------------------------------------ links


def broken_links(page: Path, text: str) -> list[str]:
    """The relative links of `page` that lead to no file, or to no heading of it."""
    links = _LINK.findall(_INLINE.sub("", _FENCE.sub("", text)))
    return [link for link in links if "://" not in link and not _leads_somewhere(page, text, link)]


def _leads_somewhere(page: Path, text: str, link: str) -> bool:
    name, _, place = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not place or place in _anchors(target.read_text(encoding="utf-8") if name else text)


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {anchor(re.sub(r"[`*]", "", heading)) for heading in headings}


# ------------------------------------------------------------------ command lines


def command_lines(text: str) -> Iterator[str]:
    """The `pipo` commands of a Markdown page: lines of blocks, and code in a line."""
    for block in blocks(text):
        yield from _commands_in(block.splitlines())
    yield from _commands_in(inline_code(text))


def header_command_lines(text: str) -> Iterator[str]:
    """The `pipo` commands in a recipe's comments."""
    lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    yield from _commands_in(lines)
    yield from (line for remark in lines if "by hand: " in remark for line in _commands_in([remark.split(": ", 1)[1]]))


def _commands_in(lines: list[str]) -> Iterator[str]:
    for line in lines:
        bare = re.sub(r"^(\$ )?([A-Z_]+=\S+ )*", "", line.strip())
        if re.match(r"pipo( |$)", bare):
            yield bare


def command_problems(line: str) -> list[str]:
    """The problems of a documented command line: unknown commands, options, recipes, keys or names.

    Words in capitals stand for something of the reader's, `a|b` for either, `[x]` for what may be left out,
    and names that begin with `my` for files of the reader's own.
    """
    words = shlex.split(re.sub(r"[\[(](\w[\w.]*=\w+ …|[A-Z…]+)[\])]", "", line), comments=True)
    return [f"{line}: {problem}" for choice in _choices(words) for problem in _problems(choice)]


def _choices(words: list[str]) -> Iterator[list[str]]:
    """Yield the words with each of their alternatives `a|b` chosen."""
    for index, word in enumerate(words):
        if re.fullmatch(r"[a-z-]+(\|[a-z-]+)+", word):
            for choice in word.split("|"):
                yield from _choices([*words[:index], choice, *words[index + 1 :]])
            return
    yield [word for word in words if word != "--help"]


def _problems(words: list[str]) -> list[str]:
    known = dict(commands())
    path, rest = "pipo", words[1:]
    while rest and f"{path} {rest[0]}" in known:
        path, rest = f"{path} {rest[0]}", rest[1:]
    if hasattr(known[path], "commands"):
        return [f"no command {rest[0]!r}"] if rest and not (rest[0].startswith("-") or rest[0].isupper()) else []
    if not rest:
        return []  # a command's name in running text
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            values = known[path].make_context(path, list(rest)).params
        return list(_unknown_names(path, values))
    except PipoError as error:
        return [error.message]
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors have no public class of their own
            raise
        return [error.format_message()]


def _unknown_names(path: str, values: dict[str, Any]) -> Iterator[str]:
    """Load the recipes that the arguments name; yield names that are in no catalog.

    Raises:
        PipoError: if a recipe, key or kind is unknown.
    """
    words = [*([values["recipe"]] if values.get("recipe") else []), *(values.get("overrides") or [])]
    if path == "pipo recipes schema":
        known_model(values["kind"])
    elif path == "pipo recipes validate":
        words = values["words"]
    elif path == "pipo merge":
        words = [word for word in [values["source"], *words] if is_change(word) or word.endswith(".yaml")]
    elif path == "pipo download":
        for name in values["names"] or ():
            if name != "tiny" and not name.isupper() and find_name(name, values["kind"]) is None:
                yield f"{name} is neither in the catalog nor a hub id"
    names = [word for word in words if not is_change(word)]
    changes = [word for word in words if is_change(word) and word.partition("=")[0].upper() != "KEY"]
    own = [
        name
        for name in (values.get("suites") or [values.get("suite")])
        if name and not (name.isupper() or name.endswith(".yaml"))
    ]
    for name in own:
        find_suites(name)
    if not names and path in ("pipo eval", "pipo bench"):
        names = ["eval.yaml" if path == "pipo eval" else "tiny/bench.yaml"]
    for name in names:
        if name.isupper() or Path(name).name.startswith("my"):
            continue
        for file in sorted(ROOT.glob(name)) if "*" in name else [find_recipe(name, path.rpartition(" ")[2])]:
            load_recipe(file, changes)


_SGLANG_OPTIONS = {
    *("--tp-size", "--dp-size", "--pp-size", "--enable-dp-attention", "--speculative-algorithm", "--enable-metrics"),
    *(
        "--disaggregation-mode",
        "--enable-lora",
        "--enable-pdmux",
        "--tokenizer-worker-num",
        "--enable-hierarchical-cache",
    ),
    *("--reasoning-parser", "--enable-deterministic-inference", "--mem-fraction-static", "--dtype", "--"),
    *("--base-gpu-id", "--max-logprobs"),
    *("--cap-add", "--security-opt"),  # docker
}
"""Options of other programs that pages name; `tests/sglang_cpu` gives some of SGLang's."""


def unknown_options(text: str) -> list[str]:
    """The options `--x` in a page's running text that no command has, nor SGLang's server."""
    known = {option for _, command in commands() for item in command.params for option in item.opts} | {"--help"}
    known |= _SGLANG_OPTIONS
    named = [code.split()[0] for code in inline_code(text) if code.startswith("--")]
    return [option for option in named if option not in known]


# ------------------------------------------------------------------ keys of recipes


def unknown_settings(text: str) -> list[str]:
    """The changes `key=value` in a page's running text whose key no kind of recipe has."""
    changes = [code for code in inline_code(text) if re.fullmatch(r"'?~?[a-z][a-z0-9_.-]*(=[^=]+)?'?", code)]
    keys = {change: change.strip("'~").partition("=")[0] for change in changes if not _FILE.search(change)}
    meant = {change for change, key in keys.items() if "=" in change or key.partition(".")[0] in _parts()}
    return [change for change in changes if change in meant and keys[change] not in {*_keys(), "key", "a.b"}]


@cache
def _keys() -> frozenset[str]:
    """Every dotted key of every kind, alone and behind the name of a shipped pipeline's stage."""
    keys = {kind: set(dotted_keys(model)) for kind, model in KINDS.items()}
    found = {key for known in keys.values() for key in known}
    for path in shipped_recipes().values():
        recipe = load_recipe(path)
        for stage in getattr(recipe, "stages", []):
            found |= {f"{stage.name}.{key}" for key in keys[load_recipe(Path(stage.recipe)).kind]}
    return frozenset(found)


@cache
def _parts() -> frozenset[str]:
    """The keys that have keys of their own, as `optimizer`: code that begins so is meant as a key."""
    return frozenset(key.partition(".")[0] for model in KINDS.values() for key in dotted_keys(model) if "." in key)


# ------------------------------------------------------------------ messages


def unknown_messages(lines: list[str]) -> list[str]:
    """The lines that no text in the code can make."""
    bare = [_BEFORE_MESSAGE.sub("", line) for line in lines if line.strip()]
    return [line for line in bare if not any(template.fullmatch(line) for template in _templates())]


@cache
def _templates() -> list[re.Pattern[str]]:
    """Every text in the code as a pattern, with anything where a value is filled in."""
    found: list[re.Pattern[str]] = []
    for package in ("pipo_core", "pipo_cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                fixed = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
                if sum(len(text) for text in fixed if text) >= _MESSAGE_LETTERS:
                    found.append(re.compile("".join(".*" if text is None else re.escape(text) for text in fixed)))
    return found
