"""Writes and checks the published definition of every agent tool: one JSON file each in `tools/catalogue/`.

`python tools/catalogue.py` writes them, `--check` fails if a file is missing, superfluous or different.
Next to what the server publishes, a file holds the full schema of the result, whose nested rows the
server publishes as plain objects to keep the tool list small. A tool that is off by default says so; such tools do
not count against what an agent should have to read.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

from intelligentscan.app import build
from intelligentscan.domain.noun import Noun
from intelligentscan.settings import Settings
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.mcp_server import INSTRUCTIONS, IntelligentScanServer
from intelligentscan.toolsets.selection import select
from intelligentscan.toolsets.toolset import tools_of

FOLDER = Path(__file__).parent / "catalogue"
MAX_LIST = 24_000
MAX_DESCRIPTION = 400
MAX_AVERAGE_DESCRIPTION = 220
MAX_INSTRUCTIONS = 1_500


def published() -> dict[str, str]:
    """Return the text of each file by its name."""
    off = [name for toolset in BUILT_IN.values() for name, facts in tools_of(toolset).items() if not facts.by_default]
    server = IntelligentScanServer(build(Settings()), select(None, (), False, off))
    results = {
        name: get_type_hints(member)["return"]
        for toolset in BUILT_IN.values()
        for name, member in vars(toolset).items()
        if callable(member) and not name.startswith("_") and "return" in get_type_hints(member)
    }
    files: dict[str, str] = {}
    for tool in asyncio.run(server.list_tools()):
        definition: dict[str, Any] = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
        if tool.name in off:
            definition["offByDefault"] = True
        # A tool that may ask first returns its question too.
        noun = next(r for r in get_args(results[tool.name]) or (results[tool.name],) if issubclass(r, Noun))
        definition["resultSchema"] = noun.model_json_schema()
        files[f"{tool.name}.json"] = json.dumps(definition, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return files


def over_budget(files: dict[str, str]) -> list[str]:
    """Return what is longer than an agent should have to read."""
    tools = [tool for text in files.values() if "offByDefault" not in (tool := json.loads(text))]
    for tool in tools:
        del tool["resultSchema"]
    descriptions = {tool["name"]: len(tool["description"]) for tool in tools}
    total = sum(len(json.dumps(tool, ensure_ascii=False, separators=(",", ":"))) for tool in tools)
    average = sum(descriptions.values()) / len(descriptions)
    problems = [f"{name}: description of {n} characters" for name, n in descriptions.items() if n > MAX_DESCRIPTION]
    if total > MAX_LIST:
        problems.append(f"the tool list has {total:,} characters")
    if average > MAX_AVERAGE_DESCRIPTION:
        problems.append(f"descriptions have {average:.0f} characters on average")
    if len(INSTRUCTIONS) > MAX_INSTRUCTIONS:
        problems.append(f"the instructions have {len(INSTRUCTIONS):,} characters")
    print(f"{len(tools)} tools, {total:,} characters, descriptions {average:.0f} on average")
    return problems


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on any difference")
    check = parser.parse_args().check
    files = published()
    problems = over_budget(files)
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if check:
        problems += [
            f"{name}: differs; run tools/catalogue.py" for name in sorted(files) if files[name] != there.get(name)
        ]
        problems += [f"{name}: no such tool" for name in sorted(there.keys() - files.keys() - {"openapi.json"})]
    else:
        FOLDER.mkdir(exist_ok=True)
        for name in there.keys() - files.keys() - {"openapi.json"}:
            (FOLDER / name).unlink()
        for name, text in files.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
