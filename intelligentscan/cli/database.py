"""`db`: the state of the guarded database, its upgrade, and PostgreSQL's split roles."""

import sys
from typing import Annotated

import typer
from rich.text import Text

from intelligentscan.cli.confirmation import Yes, asks, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import (
    Json,
    answer,
    counted,
    facts_table,
    print_json,
    print_next,
    print_warning,
)
from intelligentscan.domain.administration import DatabaseCheck, RolesResult, UpgradeResult

_NOT_IN_ORDER = 1
_SHOWN_GUARDS = 5
db = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@db.command("check")
@reported
def db_check(json: Json = False) -> None:
    """Look at guards, schema and rights; changes nothing.

    Exit code: 0 in order, 1 not.
    """
    found = on_services(lambda services: services.adoption.check(), doing="Looking")
    if json:
        print_json(found)
    else:
        _print_check(found)
    if not found.ok:
        raise typer.Exit(_NOT_IN_ORDER)


@db.command("upgrade")
@reported
def db_upgrade(yes: Yes = False, json: Json = False) -> None:
    """Upgrade MLflow's schema under the guards, or change nothing."""
    # No look at the store before: an upgrade needs its file alone, and this process must not hold it either.
    confirm(
        [
            "MLflow's schema, the governance tables and the guards are brought up to this release, or nothing changes.",
            "Locked and sealed rows are compared before and after; of a SQLite store a backup is kept.",
            "End everything that uses this store first: assistants, notebooks, MLflow's server.",
        ],
        yes=yes,
    )
    done = on_services(lambda services: services.upkeep.upgrade(), doing="Upgrading", opening=False)
    if json:
        print_json(done)
    else:
        _print_upgrade(done)


@db.command("init-roles")
@reported
def db_init_roles(
    prefix: Annotated[str, typer.Option(help="What the names of the roles begin with.")] = "intelligentscan",
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only print the SQL.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the PostgreSQL roles owner, app, npta and auditor."""
    if not dry_run and asks(yes=yes):
        planned = on_services(lambda services: services.upkeep.init_roles(prefix, dry_run=True), doing="Looking")
        confirm(
            [
                f"The roles {', '.join(planned.roles)} get what each needs (--dry-run prints the SQL).",
                "The tables belong to the owner role afterwards: MLflow's clients then need the app role.",
            ],
            yes=yes,
        )
    done = on_services(lambda services: services.upkeep.init_roles(prefix, dry_run=dry_run), doing="Making roles")
    if json:
        print_json(done)
    else:
        _print_roles(done)


def _print_check(found: DatabaseCheck) -> None:
    console = answer()
    mark, style = ("✓", "bold green") if found.ok else ("✗", "bold red")
    console.print(Text(f"{mark} {'in order' if found.ok else 'not in order'}", style=style))
    revision = found.mlflow_revision or "–"
    schema = f"MLflow {revision}" + (f", {found.mlflow_head} is needed" if found.upgrade_needed else "")
    facts = [
        ("database", found.dialect),
        ("schema", schema),
        ("governed", f"{counted(found.models, 'model')}, {counted(found.locks, 'locked experiment')}")
        if found.governed
        else ("governed", "no"),
        ("trail", counted(found.events, "event")),
        ("enforcement", found.enforcement),
    ]
    for kind, guards in found.guards.items():
        shown = ", ".join(guards[:_SHOWN_GUARDS])
        facts.append((f"{kind} guards", f"{shown} …" if len(guards) > _SHOWN_GUARDS else shown))
    console.print(facts_table(facts))
    if found.next:
        print_next(found.next)


def _print_upgrade(done: UpgradeResult) -> None:
    console = answer()
    if done.upgraded:
        console.print(f"✓ upgraded from {done.before or 'nothing'} to {done.after}", style="bold green")
    else:
        console.print(f"✓ up to date ({done.after}); nothing was changed", style="bold green")
    if done.verified:
        console.print(f"  {done.verified} locked experiments and governed versions were compared")
    if done.backup:
        console.print(Text(f"  backup: {done.backup}"), soft_wrap=True)
    for note in done.notes:
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)


def _print_roles(done: RolesResult) -> None:
    if done.status == "would_do":
        for statement in done.statements:
            sys.stdout.write(f"{statement.rstrip().removesuffix(';')};\n")
    else:
        answer().print(f"✓ roles: {', '.join(done.roles)}", style="bold green", soft_wrap=True)
        answer().print(f"  {counted(len(done.statements), 'statement')} done")
    for note in done.notes:
        print_warning(note)
