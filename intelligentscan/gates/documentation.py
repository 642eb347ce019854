"""Gates on what a model tells about itself: its inputs and outputs, and its card."""

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.gates.outcome import another_run, does_not_apply, missing, passed, shortened, too_weak

_MAX_FIELD = 60
_ARGUMENTS = ("description", "use_case")
"""Fields that have an argument of their own when a version is registered; the others are its tags `card.FIELD`."""


class HasSignature:
    """Does the sealed model declare its inputs and outputs, and hold an example of its input?"""

    name: GateName = "signature"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass a model that has both."""
        lacking = [
            what
            for what, there in (("signature", evidence.signature), ("input example", evidence.input_example))
            if not there
        ]
        if lacking:
            return missing(
                self.name,
                f"the model has no {' and no '.join(lacking)} (log_model signature=… input_example=…); "
                f"{another_run(evidence, 'a run whose model has')}",
            )
        return passed(self.name, "inputs, outputs and an example are declared")


class Documented:
    """Is everything written that the model card must say?"""

    name: GateName = "documented"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail while a field of the card is empty."""
        wanted = list(dict.fromkeys(rules.settings.fields))
        if not wanted:
            return does_not_apply(self.name, "the policy names no fields")
        if empty := [untrusted(field, _MAX_FIELD) for field in wanted if field not in evidence.card]:
            named = shortened([f"'{field}'" for field in empty])
            return missing(self.name, f"the card says nothing about {named}; {_written(evidence, empty)}")
        if weak := too_weak(self.name, "self-reported", rules, "texts of the card"):
            return weak
        filled = shortened([f"'{untrusted(field, _MAX_FIELD)}'" for field in wanted])
        return passed(self.name, f"the card fills {filled}", "self-reported")


def _written(evidence: Evidence, empty: list[str]) -> str:
    """Return the calls that fill the fields; what is sealed stays as it is, so it takes another version."""
    given = {field: "…" for field in empty if field in _ARGUMENTS}
    if tags := [field for field in empty if field not in _ARGUMENTS]:
        given["tags"] = "{" + ", ".join(f"'card.{field}': …" for field in tags[:3]) + "}"
    return another_run(evidence, "the run again", **given)
