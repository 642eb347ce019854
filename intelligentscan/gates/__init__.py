"""The promotion checks that are built in, in the order in which they are reported."""

from intelligentscan.gates.documentation import Documented, HasSignature
from intelligentscan.gates.evaluation import Evaluated
from intelligentscan.gates.findings import Fresh, NoOpenFindings
from intelligentscan.gates.integrity import Intact, NotDrifted, Sealed
from intelligentscan.gates.interface import Gate
from intelligentscan.gates.lineage import Lineage
from intelligentscan.gates.metrics import MetricThresholds, NotWorseThanChampion
from intelligentscan.gates.review import Reviewed, SegregationOfDuties

BUILT_IN: tuple[Gate, ...] = (
    Sealed(),
    Intact(),
    NotDrifted(),
    Reviewed(),
    SegregationOfDuties(),
    MetricThresholds(),
    NotWorseThanChampion(),
    NoOpenFindings(),
    Fresh(),
    Lineage(),
    HasSignature(),
    Documented(),
    Evaluated(),
)
