"""The command `intelligentscan`: the MCP server, or the command line for a person at a terminal and for scripts."""

import gc
import sys


def main() -> int:
    """Run the MCP server for `mcp`, or when a client started us without arguments; the command line otherwise.

    What neither needs is imported here and not above: a client waits for the handshake with a short deadline.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["mcp"] or (not arguments and not _at_a_terminal()):
        # The imports make objects that stay; collecting among them would be a tenth of the start.
        gc.disable()
        from intelligentscan.server.main import main as serve

        return serve(arguments[1:])
    from intelligentscan.cli.app import run

    return run()


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
