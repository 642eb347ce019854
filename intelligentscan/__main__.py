"""The command `intelligentscan`, also as `python -m intelligentscan`: the MCP server, or the command line."""

import gc
import os
import sys
from typing import NoReturn


def main() -> int:
    """Run the MCP server for `mcp`, or when a client started us without arguments; the command line otherwise."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["mcp"] or (not arguments and not _at_a_terminal()):
        # The imports make objects that stay; collecting among them would be a tenth of the start.
        gc.disable()
        from intelligentscan.server.main import main as serve

        _leave(serve(arguments[1:]))
    from intelligentscan.cli import main as command_line

    return int(command_line() or 0)


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _leave(code: int) -> NoReturn:
    """End the process at once: writes are done by now, and a thread that still reads must not hold up the client."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
