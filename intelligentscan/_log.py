"""The log of a process: on stderr, for operators, without credentials and without characters that move a terminal."""

import logging
import sys

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain.text import visible


class LogFormatter(logging.Formatter):
    """Writes records as lines; whatever a library or a traceback repeats passes through here."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as it is written."""
        text = without_credentials(super().format(record))
        return "\n".join(visible(line) for line in text.splitlines())


def log_to_stderr(level: int) -> None:
    """Send the records of this level and above to stderr, unless the process has a log already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
