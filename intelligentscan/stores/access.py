"""The one gate to the store: MLflow is imported and the store opened in the background, once.

Importing MLflow takes about a second, so it must not delay the answer to a handshake. Whoever needs
the store waits for it on a worker thread of its lane, never on the event loop.
"""

import importlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

from intelligentscan._threads import Lanes
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from intelligentscan.stores.interface import Stores
    from intelligentscan.stores.mlflow_upgrade import GovernanceSteps, UpgradeReport

T = TypeVar("T")
logger = logging.getLogger(__name__)


class StoreAccess:
    """Reads and writes on the store that the settings name, each on a bounded thread with a deadline."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # MLflow nests sessions, so a call can hold two of the pool's 15 connections.
        # One writer loses nothing on SQLite, which has one write lock anyway.
        writers, readers = (1, 4) if settings.is_sqlite else (4, 4)
        self._lanes = Lanes(writers, readers, settings.deadline_s)
        self._opening = threading.Lock()
        self._stores: Stores | None = None

    def start(self) -> None:
        """Begin to import MLflow and to open the store, without waiting for it."""
        threading.Thread(target=self._warm_up, name="open-store", daemon=True).start()

    async def read(self, use: "Callable[[Stores], T]") -> T:
        """Run a reading function on the store.

        Raises:
            StoreError: the store refused, broke, or did not answer in time.
        """
        return await self._lanes.read(self._call, use)

    async def write(self, use: "Callable[[Stores], T]") -> T:
        """Run a writing function on the store; once begun it is completed.

        Raises:
            StoreError: the store refused, broke, or did not confirm in time.
        """
        return await self._lanes.write(self._call, use)

    def call_blocking(self, use: "Callable[[Stores], T]") -> T:
        """Run a function on the store in this thread, without a deadline; for what may take minutes."""
        return self._call(use)

    async def upgrade(self, steps: "Callable[..., GovernanceSteps]") -> "UpgradeReport":
        """Bring the schema of the store up to date, which stays closed meanwhile; may take minutes.

        Args:
            steps: makes the steps of the governance layer, given the class that holds them.

        Raises:
            StoreError: the store cannot be upgraded; nothing was changed.
        """

        def work() -> "UpgradeReport":
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            home = importlib.import_module("intelligentscan.stores.mlflow_upgrade")
            report: UpgradeReport = home.upgrade(self._settings.store_uri, steps(home.GovernanceSteps))
            return report

        return await anyio.to_thread.run_sync(work)

    def _call(self, use: "Callable[[Stores], T]") -> T:
        return self._open().call(use)

    def _open(self) -> "Stores":
        if self._stores is None:
            with self._opening:
                if self._stores is None:  # a failed opening is tried again by the next call
                    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
                    _leave_removed_folder()
                    opener = importlib.import_module("intelligentscan.stores.mlflow_open")
                    stores: Stores = opener.open_stores(self._settings)
                    self._stores = stores
        return self._stores

    def _warm_up(self) -> None:
        try:
            self._open()
        except Exception:  # the call that needs the store meets the same error and reports it
            logger.info("the store could not be opened yet", exc_info=True)


def _leave_removed_folder() -> None:
    """Leave a working directory that was removed: MLflow asks for it even where it needs no relative path."""
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir("/")
