"""The command `intelligentscan`: its list of commands, and what it does without one."""

import os
import sys
import threading
from typing import Annotated

import typer

from intelligentscan import __version__
from intelligentscan.cli import (
    administration,
    audit,
    comparison,
    database,
    doctor,
    environment,
    history,
    install,
    listing,
    people,
    plans,
    policy,
    registry,
    review,
    scan,
    start,
)

CONNECT = "Connect and try"
SCAN = "Scan and compare"
REGISTRY = "Register and promote"
GOVERN = "Govern and audit"
STORE = "The store"

app = typer.Typer(
    name="intelligentscan",
    help="Track, compare, register and govern MLflow runs, models and vulnerability scans.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def bare(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Show the version or the help; without a terminal, serve MCP to whoever started us."""
    if version:
        typer.echo(f"intelligentscan {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise typer.Exit(start.serve([]))
        typer.echo(context.get_help())


_anything = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
app.command("install", rich_help_panel=CONNECT)(install.install)
app.command("demo", rich_help_panel=CONNECT)(start.demo)
app.command("doctor", rich_help_panel=CONNECT)(doctor.doctor)
app.command("mcp", rich_help_panel=CONNECT, add_help_option=False, context_settings=_anything)(start.mcp)
app.command("scan", rich_help_panel=SCAN)(scan.scan)
app.command("import-sarif", rich_help_panel=SCAN)(scan.import_sarif)
app.command("compare", rich_help_panel=SCAN)(comparison.compare)
app.command("register", rich_help_panel=REGISTRY)(registry.register)
app.command("promote", rich_help_panel=REGISTRY)(registry.promote)
app.add_typer(listing.model, name="model", rich_help_panel=REGISTRY, help="Registered models: show their versions.")
app.add_typer(
    plans.plan, name="plan", rich_help_panel=REGISTRY, help="What agents ask for: list, show, approve, decline."
)
app.command("history", rich_help_panel=GOVERN)(history.history)
app.command("verify", rich_help_panel=GOVERN)(history.verify)
app.add_typer(audit.audit, name="audit", rich_help_panel=GOVERN, help="The audit trail: log, verify, checkpoint.")
app.add_typer(
    audit.keys, name="keys", rich_help_panel=GOVERN, help="The keys that sign the trail: show, export, rotate."
)
app.add_typer(people.role, name="role", rich_help_panel=GOVERN, help="Who may do what: grant, revoke, list.")
app.add_typer(people.product, name="product", rich_help_panel=GOVERN, help="AI products: onboard, list, show.")
app.add_typer(
    review.review, name="review", rich_help_panel=GOVERN, help="The committee: list, show, decide, enrol keys."
)
app.command("adopt", rich_help_panel=GOVERN)(administration.adopt)
app.command("unlock", rich_help_panel=GOVERN)(administration.unlock)
app.command("reconcile", rich_help_panel=GOVERN)(administration.reconcile)
app.add_typer(
    administration.archive, name="archive", rich_help_panel=GOVERN, help="Sealed versions: hold, release, retain."
)
app.command("experiments", rich_help_panel=STORE)(listing.experiments)
app.command("ui", rich_help_panel=STORE)(environment.ui)
app.command("env", rich_help_panel=STORE)(environment.env)
app.command("run", rich_help_panel=STORE, context_settings=_anything)(environment.run)
app.add_typer(
    policy.policy, name="policy", rich_help_panel=GOVERN, help="What a version must pass: list, show, activate."
)
app.add_typer(database.db, name="db", rich_help_panel=GOVERN, help="The guarded database: check, upgrade, init-roles.")


def run() -> int:
    """Run the command line with the arguments of this process; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows '?' instead of a crash
    try:
        app(prog_name="intelligentscan")
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    else:
        code = 0
    if code and any(t is not threading.main_thread() and not t.daemon and t.is_alive() for t in threading.enumerate()):
        # A thread still waits for a server or database that we gave up on; Python would wait with it, for minutes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
