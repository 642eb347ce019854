"""The promotion checks that are built in, in the order in which they are reported."""

from intelligentscan.gates.integrity import Intact, NotDrifted, Sealed
from intelligentscan.gates.interface import Gate

BUILT_IN: tuple[Gate, ...] = (Sealed(), Intact(), NotDrifted())
