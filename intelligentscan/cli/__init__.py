"""The command line: the same services for a person at a terminal and for scripts."""


def main() -> int:
    """Run the command line with the arguments of this process; return its exit code."""
    # Imported here, because a client that starts the server by our name must not wait for typer and rich.
    from intelligentscan.cli.app import run

    return run()
