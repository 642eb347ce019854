"""Refused acts in the audit trail, a bounded number of them: what was tried is part of the record too."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from intelligentscan.domain.errors import GovernanceUnready, IntelligentScanError, Refused, StoreError
from intelligentscan.services.principal import person
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import Act, Subject
from intelligentscan.stores.interface import Stores

DENIED = "act.denied"
MAX_PER_MINUTE = 20
_WINDOW_MS = 60_000
logger = logging.getLogger(__name__)


class Denials:
    """Notes refusals of one store."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    @asynccontextmanager
    async def noting(self, tool: str, subject: Subject) -> AsyncIterator[None]:
        """Note in the trail what is refused inside; the refusal itself goes on to the caller.

        A refusal by a direct connection's guard, which rolls everything back, cannot be noted.
        """
        try:
            yield
        except GovernanceUnready:
            raise  # the trail cannot be written either
        except Refused as refusal:
            await self._note(tool, refusal, subject)
            raise

    async def _note(self, tool: str, refusal: IntelligentScanError, subject: Subject) -> None:
        def note(stores: Stores) -> None:
            if not stores.governance.installed():
                return
            with stores.governance.unit() as unit:
                actor = unit.principal(person())
                since = int(time.time() * 1000) - _WINDOW_MS
                if unit.read.count_since(DENIED, actor, since, MAX_PER_MINUTE) < MAX_PER_MINUTE:
                    unit.append(Act(DENIED, person(), subject, facts={"tool": tool, "code": refusal.code}))

        try:
            await self._store.write(note)
        except (GovernanceUnready, StoreError):  # the caller needs to hear of the refusal, not of this
            logger.info("a refusal could not be noted in the audit trail", exc_info=True)
