"""How strong a governance answer is here, computed from what this process can reach."""

from intelligentscan.domain.registry import Enforcement
from intelligentscan.stores.governance.reach import reach
from intelligentscan.stores.interface import Stores


def claim(stores: Stores) -> Enforcement:
    """Return what may be claimed for whoever has the rights of this process.

    `prevented`: it can neither alter the guards nor write governance rows. `detected`: it could, but cannot
    sign them, so a forgery shows. `advisory`: nothing of ours stands in the store, or it holds the key too.
    """
    governance = stores.governance
    if not governance.joint or not governance.installed():
        return "advisory"
    with governance.reading() as read:
        facts = reach(read.connection)
        key_id = read.key_in_force()
    if not governance.guard_report().ok:
        return "advisory"
    if not facts.alters_guards and not facts.writes_governance:
        return "prevented"
    if key_id is None or governance.keys.can_read(key_id):
        return "advisory"
    return "detected"
