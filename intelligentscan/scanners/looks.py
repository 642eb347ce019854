"""Where a scan looked: tells why it could not have seen a finding that another scan has."""

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.rule_aliases import matching_rule
from intelligentscan.scanners.scan_record import ScanRecord


class Look:
    """One of two scans that are compared."""

    def __init__(self, record: ScanRecord, other: ScanRecord, name: str) -> None:
        """Args: record is the scan, other the one it is compared with, name what reasons call it: first or second."""
        self._record = record
        self._other = other
        self._name = name
        self._rules = {
            engine: frozenset(matching_rule(engine, rule) for rule in rules)
            for engine, rules in record.rules_run.items()
        }
        self._folders = {engine: _folders(paths) for engine, paths in record.failed_files.items()}
        self._left_out = _folders(record.left_out)

    def missed(self, finding: Finding, path: str | None) -> str | None:
        """Return why the scan could not have seen the finding, or None if it would have.

        Args:
            finding: of the other scan.
            path: its file, by the name it has in this scan.
        """
        engine = finding.engine
        failed = _within(path, self._record.failed_files.get(engine, frozenset()), self._folders.get(engine, ()))
        left_out = _within(path, self._record.left_out, self._left_out)
        if self._record.files and path is not None and path not in self._record.files and not failed and not left_out:
            return None  # the file was not there, and nothing in it
        if engine not in self._record.engines:
            return f"{engine} did not run in the {self._name} scan"
        if left_out:
            return f"the path was excluded from the {self._name} scan"
        if failed:
            return f"the file could not be analysed by {engine} in the {self._name} scan"
        if engine in self._record.uncertain:
            return f"{engine} failed in part in the {self._name} scan, without saying on which files"
        rules = self._rules.get(engine)
        rule = matching_rule(engine, finding.rule)
        if rules and rule not in rules and rule.partition("/")[0] not in rules:
            return f"the rule did not run in the {self._name} scan"
        here, there = self._record.engines.get(engine), self._other.engines.get(engine)
        if here and there and here != there:
            return f"{engine} has another version in the {self._name} scan"
        if self._record.rulesets.get(engine) != self._other.rulesets.get(engine):
            return f"{engine} had another rule set in the {self._name} scan"
        return None


def _folders(paths: frozenset[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if path.endswith("/"))


def _within(path: str | None, paths: frozenset[str], folders: tuple[str, ...]) -> bool:
    return path is not None and (path in paths or path.startswith(folders))
