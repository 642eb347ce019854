"""`env`, `run` and `ui`: plain MLflow on our store."""

import errno
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, aside, print_error, print_json, print_warning
from intelligentscan.domain.errors import InvalidArgument, NotFound
from intelligentscan.settings import Settings, shown_uri
from intelligentscan.store_environment import exports, is_server

_NOT_FOUND, _NOT_RUNNABLE = 127, 126
"""What shells, env(1) and nice(1) answer for a command they cannot start."""

_PORTS = 50
_LIGHT_SERVER = {
    "MLFLOW_WORKERS": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}
"""One person looking needs one process instead of eight, and no warnings about MLflow's own dependencies."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@reported
def env(json: Json = False) -> None:
    """Print exports for plain MLflow: eval "$(intelligentscan env)"."""
    variables = _ready_store(Settings.load())
    if json:
        print_json(variables)
    else:
        for name, value in variables.items():
            typer.echo(f"export {name}={shlex.quote(value)}")


@reported
def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", metavar="CMD")],
    json: Json = False,
) -> None:
    """Run any command on our store: run -- python train.py.

    Its exit code is ours. --json only changes how our own errors look.
    """
    child = dict(os.environ)  # before our own settings for MLflow get into it
    child |= _ready_store(Settings.load())
    _become([*command, *context.args], child, as_json=json)


@reported
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port; the next free one if it is taken.")] = 5000,
    json: Json = False,
) -> None:
    """Open MLflow's UI on our store."""
    settings = Settings.load()
    if is_server(settings.store_uri):
        raise InvalidArgument(
            f"The store is {shown_uri(settings.store_uri)}, which has its own UI.",
            next="open that address in a browser, or unset MLFLOW_TRACKING_URI for the embedded store.",
        )
    child = {**_LIGHT_SERVER, **os.environ}
    child |= _ready_store(settings)
    free = _free_port(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{free}"
    if json:
        print_json({"url": url, "store": shown_uri(settings.store_uri)})
        os.dup2(2, 1)  # what MLflow prints would break the document
    else:
        console, taken = aside(), f" ({port} is taken)" if free != port else ""
        console.print(Text(f"MLflow UI: {url}{taken}", style="bold green"), soft_wrap=True)
        where = f"on {shown_uri(settings.store_uri)}; it starts in some seconds, Ctrl-C stops it"
        console.print(Text(where, style="dim"), soft_wrap=True)
        console.print(Text("'Model training' at its top left shows the runs", style="dim"), soft_wrap=True)
    if host not in _LOOPBACK:
        print_warning(f"Everybody who reaches {host} can read and change this store; there is no password.")
    # -P: a file named like a package in the working directory must not be imported instead of it.
    _become([sys.executable, "-P", "-m", "mlflow", "ui", "--host", host, "--port", str(free)], child, as_json=json)


def _ready_store(settings: Settings) -> dict[str, str]:
    """Make the store if it is not there, and return the variables that select it."""
    if settings.is_sqlite:
        # Otherwise plain MLflow would make it, in a slower way that two processes must not try at once.
        on_services(
            lambda services: services.create_store(), doing="Making the store", settings=settings, opening=False
        )
    return exports(settings)


def _become(command: Sequence[str], environ: Mapping[str, str], *, as_json: bool) -> NoReturn:
    """Replace this process by the command, so that signals and the exit code are its own."""
    program = command[0] if "/" in command[0] else _on_path(command[0], environ)
    try:
        if program is None:
            raise FileNotFoundError(command[0])
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
            signal.signal(number, signal.SIG_DFL)
        os.execve(program, list(command), dict(environ))  # noqa: S606  running this command is what was asked for
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        reason = "is not there" if missing else f"cannot be run: {exc.strerror}"
        error = NotFound(
            f"The command '{command[0]}' {reason}.",
            next="check its spelling and PATH; write options of the command after '--'.",
        )
        print_error(error, as_json=as_json)
        raise typer.Exit(_NOT_FOUND if missing else _NOT_RUNNABLE) from exc


def _on_path(name: str, environ: Mapping[str, str]) -> str | None:
    """Return where a program is: on PATH, or beside our interpreter, as mlflow is without its folder on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return found or (str(beside) if os.access(beside, os.X_OK) else None)


def _free_port(host: str, port: int) -> int:
    """Return the port, or the next one that nobody listens on.

    Raises:
        InvalidArgument: the address is not of this machine, or all ports are taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + _PORTS, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except PermissionError as exc:
                raise InvalidArgument(
                    f"Port {candidate} is not for this user.", next="give --port above 1023."
                ) from exc
            except socket.gaierror as exc:
                raise InvalidArgument(f"'{host}' is no address.", next="give --host 127.0.0.1.") from exc
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL:
                    raise InvalidArgument(
                        f"'{host}' is no address of this machine.", next="give --host 127.0.0.1."
                    ) from exc
                continue
        return candidate
    raise InvalidArgument(f"Ports {port} to {port + _PORTS - 1} are all taken.", next="give another --port.")
