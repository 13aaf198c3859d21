"""What the site adds to docs/: the pages of the root folder, and the reference of every command and every public name.

A hook of MkDocs: the functions `on_...` are its events.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pocketprior.core.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("core", "kernels", "distill", "export", "runtimes")
AT_THE_ROOT = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


# -- the pages of the root folder, and links between them


def linked(text: str, place: str) -> str:
    """The Markdown of the file `place` with links as the site has them: out of the site, only their text stays."""

    def link(found: re.Match[str]) -> str:
        label, target = found.groups()
        file, _, anchor = target.partition("#")
        if "://" in target or not file:
            return found[0]
        path = os.path.normpath(PurePosixPath(place).parent / file)
        inside = AT_THE_ROOT.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        return f"[{label}]({inside}{'#' * bool(anchor)}{anchor})" if inside else label

    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    pattern = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
    return "".join(part if part.startswith("```") else pattern.sub(link, part) for part in parts)


# -- the commands


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser that prints the help of a command, with all that its module declares."""
    caught: list[argparse.ArgumentParser] = []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        original = argparse.ArgumentParser.print_help
        argparse.ArgumentParser.print_help = lambda self, *_: caught.append(self)  # type: ignore[method-assign]
        try:
            status = main([*words, "--help"])
        finally:
            argparse.ArgumentParser.print_help = original  # type: ignore[method-assign]
    if status or not caught:
        raise PluginError(f"'pocketprior {' '.join(words)} --help' exits with {status}: {printed.getvalue()}")
    return caught[-1]


def below(parser: argparse.ArgumentParser) -> list[str]:
    """The commands under a command: the stages of a system, the kinds of a benchmark."""
    chosen = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [name for action in chosen for name in action.choices]


def argument_rows(parser: argparse.ArgumentParser) -> list[str]:
    """A row per argument: how it is written, and its help."""
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or "--help" in action.option_strings:
            continue
        choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices is not None else None
        default = choices or (action.dest.upper() if action.option_strings else action.dest)
        value = "" if action.nargs == 0 else formatter._format_args(action, default)
        written = " ".join(filter(None, (", ".join(action.option_strings), value)))
        meaning = re.sub(r"\s+", " ", formatter._expand_help(action)).replace("|", r"\|")
        rows.append(f"| `{written}` | {meaning} |")
    return rows


def command_page(words: list[str], depth: int = 1) -> Iterator[str]:
    """The reference of a command, and of those below it that are not in the table on their own."""
    parser = parser_of(words)
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
    yield f"{'#' * min(depth, 3)} {' '.join(['pocketprior', *words])}\n"
    yield f"{parser.description or ''}\n\n```text\n{usage}\n```\n"
    if rows := argument_rows(parser):
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows, ""])
    if parser.epilog:
        yield f"{parser.epilog}\n"
    for name in below(parser):
        if " ".join([*words, name]) not in COMMANDS:
            yield from command_page([*words, name], depth + 1)


def commands() -> dict[str, str]:
    """Page -> Markdown, one per command of the table."""
    pages = {f"commands/{name.replace(' ', '-')}.md": "\n".join(command_page(name.split())) for name in COMMANDS}
    rows = "\n".join(f"| [`{n}`]({n.replace(' ', '-')}.md) | {row[1]} |" for n, row in COMMANDS.items())
    return {"commands/index.md": f"# Commands\n\n| command | does |\n| --- | --- |\n{rows}\n", **pages}


# -- the public names


def public_names(path: Path) -> list[str]:
    """The names of a module's `__all__` that it defines itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in froms for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if name not in imported]
    return []


def rooms() -> dict[str, dict[str, list[str]]]:
    """Folder -> module -> its public names; modules that offer nothing are left out."""
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for path in sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        place = path.relative_to(ROOT)
        names = public_names(path)
        if names and path.parent.name != "commands":
            module = place.parent if path.stem == "__init__" else place.with_suffix("")
            found[place.parent.as_posix()][".".join(("pocketprior", *module.parts))] = names
    return found


def reference() -> dict[str, str]:
    """Page -> Markdown, one per folder of the package."""
    pages = {}
    for folder, modules in rooms().items():
        options = "    options:\n      heading_level: 2\n      members: "
        blocks = [f"::: {module}\n{options}{names}\n" for module, names in modules.items()]
        pages[f"reference/{folder.replace('/', '.')}.md"] = "\n".join([f"# {folder}\n", *blocks])
    return pages


# -- the events


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages: those of docs/index.md as it lists them, then the reference."""
    home = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    guides = list(dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)\)", home)))
    folders = [f"reference/{folder.replace('/', '.')}.md" for folder in rooms()]
    config.nav = [
        "index.md",
        "readme.md",
        {"Guides": guides},
        {"Commands": ["commands/index.md", *(f"commands/{name.replace(' ', '-')}.md" for name in COMMANDS)]},
        {"API": folders},
        "contributing.md",
        "changelog.md",
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    root = {page: linked((ROOT / name).read_text(encoding="utf-8"), name) for name, page in AT_THE_ROOT.items()}
    for page, text in {**root, **commands(), **reference()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn the links of docs/ that lead out of the site into text."""
    return markdown if page.file.generated_by else linked(markdown, f"docs/{page.file.src_uri}")


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Fail where a page would load something from the web."""
    loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\s\">]*)", output)
    loaded += re.findall(r"<link[^>]* href=\"?(https?:[^\s\">]*)", output)
    if loaded:
        raise PluginError(f"{page.file.src_uri} loads {', '.join(loaded)}; the site must work offline")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Fail where a public name has no entry in the site's inventory."""
    inventory = (Path(config.site_dir) / "objects.inv").read_bytes().split(b"\n", 4)[4]
    there = {line.partition(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    wanted = {f"{module}.{name}" for modules in rooms().values() for module, names in modules.items() for name in names}
    if missing := sorted(wanted - there):
        raise PluginError(f"{len(missing)} public names have no entry in the reference: {', '.join(missing[:20])}")
