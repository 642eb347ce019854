"""What importing our modules must not import: the handshake is answered before MLflow is there."""

import subprocess
import sys


def imported(*modules: str) -> set[str]:
    """Return the top-level packages in memory after importing the modules in a new interpreter."""
    script = f"import {', '.join(modules)}, sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(ended.stdout.split())


def test_importing_our_modules_imports_neither_mlflow_nor_what_only_some_calls_need() -> None:
    heavy = {"mlflow", "alembic", "sklearn", "pandas", "numpy", "matplotlib"}
    assert imported("intelligentscan.api", "intelligentscan.server.main").isdisjoint({*heavy, "sqlalchemy"})
    services = ("scans", "registry", "comparison", "history", "integrity", "trail", "adoption", "upkeep")
    assert imported(*(f"intelligentscan.services.{name}" for name in services)).isdisjoint(heavy)


def test_composing_the_services_imports_neither_face() -> None:
    assert imported("intelligentscan.app", "intelligentscan.api").isdisjoint({"mcp", "mcp_types", "fastapi", "typer"})


BUILT = """
import sys
from intelligentscan.app import build
from intelligentscan.settings import Settings
services = build(Settings(home=sys.argv[1]))
services.load()
print("mlflow" in sys.modules)
services.start()
import asyncio
asyncio.run(services.experiments.search())
print("mlflow" in sys.modules)
"""


def test_building_every_service_waits_with_mlflow_until_a_call_needs_it(tmp_path: object) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BUILT, f"{tmp_path}/home"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == ["False", "True"]
