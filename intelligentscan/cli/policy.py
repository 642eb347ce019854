"""`policy`: which promotion policies there are, what each asks for, and which one decides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.text import Text

from intelligentscan.app import Services
from intelligentscan.cli.confirmation import Reason, Yes, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, clock, facts_table, plain_table, print_json
from intelligentscan.domain.people import Tier
from intelligentscan.domain.policy import (
    BUILT_IN_POLICIES,
    MAX_POLICY_BYTES,
    GateName,
    GateSettings,
    ModelRules,
    PolicyInForce,
    PromotionPolicy,
    Threshold,
)
from intelligentscan.domain.text import untrusted

policy = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_DIGITS = 12
_QUESTIONS: dict[GateName, str] = {
    "sealed": "registered through the service, its bytes in the archive",
    "intact": "its bytes are those that were registered",
    "not_drifted": "registry, experiment, guards and trail match the record",
    "reviewed": "enough reviewers approved exactly these bytes",
    "segregation_of_duties": "who approved neither asked for it nor made its run",
    "metric_thresholds": "metrics are within the policy's limits",
    "not_worse_than_champion": "metrics are no worse than in Production",
    "no_open_findings": "our scan of its commit found nothing critical or high",
    "fresh": "age of run and scan",
    "lineage": "commit and datasets are known",
    "signature": "signature and input example are there",
    "documented": "fields of the model card are filled",
    "evaluated": "it has won an evaluation",
}


@policy.command("list")
@reported
def policy_list(json: Json = False) -> None:
    """List the policies that ship or were activated before."""
    found = on_services(lambda services: services.policies.list(), doing="Reading")
    if json:
        print_json(found)
        return
    table = plain_table("policy", "version", "", "digest", "activated (UTC)")
    for row in found.policies:
        state = Text("in force", style="bold green") if row.in_force else Text("ships" if row.built_in else "")
        table.add_row(row.policy, str(row.version), state, row.digest[:_DIGITS], clock(row.at) if row.at else "–")
    answer().print(table)


@policy.command("show")
@reported
def policy_show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Name, or a digest as list shows it; the one in force if not given."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a policy asks for, by tier and stage.

    The JSON of one is a file that can be changed, named anew and activated.
    """
    found = on_services(lambda services: services.policies.show(name), doing="Reading")
    if json:
        print_json(found)
    else:
        _print_policy(answer(), found)


@policy.command("activate")
@reported
def policy_activate(
    which: Annotated[
        str, typer.Argument(metavar="NAME-or-FILE", help="solo, team, regulated, an earlier one, or a YAML file.")
    ],
    reason: Reason,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Bring a policy into force, for every model of this store."""
    confirm(
        [
            f"The policy '{which}' decides from now on what goes to Staging and Production.",
            "Reviews made under another policy count no more; what is in Production stays there.",
        ],
        yes=yes,
    )

    async def activate(services: Services) -> PolicyInForce:
        return await services.policies.activate(_text_of(services, which), reason)

    done = on_services(activate, doing="Activating")
    if json:
        print_json(done)
        return
    since = f" since {clock(done.since)}" if done.since else ""
    line = f"✓ {done.policy.policy} version {done.policy.version} is in force{since} (event {done.event})"
    answer().print(Text(line, style="bold green"), soft_wrap=True)
    answer().print(f"  sha256 {done.digest}", style="dim", soft_wrap=True)


def _text_of(services: Services, which: str) -> str:
    """Return the YAML of a file, or the name as it is."""
    if which in BUILT_IN_POLICIES or not ("/" in which or "." in which or Path(which).is_file()):
        return which
    data = services.roots.read_bytes(which, MAX_POLICY_BYTES, argument="FILE")
    return data.decode("utf-8", "replace") + "\n"  # never taken for a name


def _print_policy(console: Console, found: PromotionPolicy) -> None:
    console.print(Text(f"{found.policy} version {found.version}", style="bold"))
    console.print(facts_table([("review", _review(found)), ("confirmation", found.confirmation)]))
    console.print()
    table = plain_table("tier", "stage", "gate", "asks for")
    for tier, stage, gates in _ordered(found):
        for number, gate in enumerate(gates):
            first = number == 0
            table.add_row(tier if first else "", stage if first else "", gate, _asks(gate, gates[gate]))
    for number, gate in enumerate(found.rollback):
        table.add_row("", "rollback" if number == 0 else "", gate, _QUESTIONS[gate])
    console.print(table)
    if found.models:
        console.print()
        models = plain_table("models", "limits", "compared with the champion", "tolerance")
        for model in found.models:
            models.add_row(untrusted(model.name, 80), _limits(model), _compared(model), f"{model.tolerance:g}")
        console.print(models)


def _ordered(found: PromotionPolicy) -> Iterator[tuple[Tier, str, dict[GateName, GateSettings]]]:
    """Yield the gates of every tier and stage in the order in which they are reported; the kept form sorts by name."""
    for tier in sorted(found.tiers, key=get_args(Tier).index):
        for stage in ("Staging", "Production"):
            asked = next((gates for at, gates in found.tiers[tier].items() if at == stage), {})
            yield tier, stage, {gate: asked[gate] for gate in _QUESTIONS if gate in asked}


def _review(found: PromotionPolicy) -> str:
    rules = found.review
    facts = [f"quorum {rules.quorum}", f"four eyes: {'yes' if rules.four_eyes else 'no'}"]
    facts += ["signed with enrolled keys"] if rules.authenticated else []
    facts += ["at accounts that did not ask"] if rules.separate_accounts else []
    facts += ["every criterion needs evidence"] if rules.complete else []
    return ", ".join([*facts, f"an approval counts {rules.valid_days} days", f"a request waits {rules.open_days} days"])


def _asks(gate: GateName, settings: GateSettings) -> str:
    facts = [_QUESTIONS[gate]]
    if settings.origin != "self-reported":
        facts.append(settings.origin)
    if settings.max_age_days is not None:
        facts.append(f"at most {settings.max_age_days} days")
    if settings.required:
        facts.append("fails where the policy names none")
    if settings.fields:
        facts.append(", ".join(untrusted(field, 60) for field in settings.fields))
    return "; ".join(facts)


def _limits(model: ModelRules) -> str:
    return "\n".join(f"{untrusted(k, 60)} {_bounds(t)}" for k, t in model.thresholds.items()) or "–"


def _bounds(threshold: Threshold) -> str:
    least = [f"at least {threshold.min:g}"] if threshold.min is not None else []
    most = [f"at most {threshold.max:g}"] if threshold.max is not None else []
    return ", ".join([*least, *most])


def _compared(model: ModelRules) -> str:
    return ", ".join(untrusted(key, 60) for key in model.compare) or "–"
