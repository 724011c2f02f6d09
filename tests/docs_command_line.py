"""Write docs/command-line.md from what ``--help`` prints.

python tests/docs_command_line.py
"""

from pathlib import Path

import click

from mecoq_index.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command-line.md"
HEAD = """# Command line

Every command takes `--help`, and those that make or change something take `--json` and `--quiet`.
Results go to standard output, everything else to standard error. The exit code is 0 on
success, 1 on an error with its reason in one sentence, and 2 on a wrong command line.
"""


def render():
    """The page."""
    parts = [HEAD]
    context = click.Context(main, info_name="mecoq-index", max_content_width=80)
    parts.append(f"```text\n{main.get_help(context)}\n```\n")
    for name, command in main.commands.items():
        inner = click.Context(command, info_name=name, parent=context, max_content_width=80)
        text = "\n".join(line.rstrip() for line in command.get_help(inner).splitlines())
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
