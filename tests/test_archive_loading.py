"""Plain MLflow loads the sealed copy of a model, for every kind of user, and leaves it as it is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import archive_work
import pytest
from archive_work import LIMITS, write_over
from conftest import run_plain

from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_view import model_meta


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# Plain MLflow


@pytest.fixture(scope="module")
def shouter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings its own code, as `code_paths` does."""
    import mlflow

    folder = tmp_path_factory.mktemp("shouter")
    package = folder / "shouter"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from shouter.loud import Loud\n\ndef _load_pyfunc(path):\n    return Loud(open(path).read())\n"
    )
    (package / "loud.py").write_text(
        "class Loud:\n    def __init__(self, word):\n        self.word = word\n\n"
        "    def predict(self, rows, params=None):\n        return [self.word] * len(rows)\n"
    )
    (folder / "word").write_text("HEY")
    mlflow.pyfunc.save_model(
        str(folder / "model"),
        loader_module="shouter",
        data_path=str(folder / "word"),
        code_paths=[str(package)],
        pip_requirements=["mlflow"],
    )
    return folder / "model"


@pytest.fixture
def public_store(public_folder: Path, template: Path, shouter: Path) -> Path:
    """A folder for a user who owns nothing, with a store, a model and room for an archive."""
    for name in ("mlflow.db", "other.db"):
        shutil.copyfile(template, public_folder / name)
    shutil.copytree(shouter, public_folder / "model")
    return public_folder


def give_away(folder: Path) -> None:
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)


def test_plain_mlflow_loads_the_sealed_copy_as_the_user_who_owns_it(
    public_store: Path, children: ForkServerContext
) -> None:
    give_away(public_store)
    uri, other = (f"sqlite:///{public_store}/{file}.db" for file in ("mlflow", "other"))
    arguments = (other, uri, str(public_store / "model"), str(public_store / "archive"))
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        code, *answers = pool.submit(archive_work.register_and_load_as_nobody, *arguments).result(timeout=120)
    assert code == str(public_store / "archive/sealed/v1/code/shouter/__init__.py")
    assert answers == ["HEY", "HEY"]


def test_plain_mlflow_loads_a_shared_sealed_copy_as_another_user(
    public_store: Path, children: ForkServerContext
) -> None:
    uri = f"sqlite:///{public_store}/mlflow.db"
    view = archive_work.register(uri, public_store / "archive", public_store / "model", "spam", shared=True)
    write_over(public_store / "model/data/word", b"CHANGED SINCE")
    public_store.chmod(0o777)
    (public_store / "mlflow.db").chmod(0o666)
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        arguments = (f"sqlite:///{public_store}/other.db", uri, str(public_store / "model"), "models:/spam/Production")
        answer = pool.submit(archive_work.load_as_nobody, *arguments).result(timeout=120)
    assert answer == [str(view / "code/shouter/__init__.py"), "HEY", "HEY"]


LOAD = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
for uri in sys.argv[3:]:
    print(mlflow.pyfunc.load_model(uri).predict([1]), open(sys.argv[2] + "/registered_model_meta", "rb").read())
"""


def load(uri: str, view: Path, *model_uris: str) -> list[str]:
    """Load models in a process of its own as this user; return what they answer, and MLflow's note at that moment."""
    loaded = run_plain(LOAD, uri, str(view), *model_uris, env={"MLFLOW_DISABLE_TELEMETRY": "true"}, cwd=view)
    assert loaded.returncode == 0, loaded.stderr
    return loaded.stdout.splitlines()


def test_loading_by_any_name_leaves_a_view_as_it_is_even_for_root(
    tmp_path: Path, template: Path, shouter: Path
) -> None:
    from mlflow import MlflowClient

    store, name = tmp_path / "mlflow.db", "Größe 'x' #1 " + "a rather long name " * 8
    shutil.copyfile(template, store)
    uri = f"sqlite:///{store}"
    view = archive_work.register(uri, tmp_path / "archive", shouter, name, shared=False)
    client = MlflowClient(tracking_uri=uri)
    client.set_registered_model_alias(name, "champion", "1")
    uris = [f"models:/{name}{last}" for last in ("/1", "/Production", "/latest", "@champion")]
    meta = model_meta(name, 1)
    as_text, as_number = (f"['HEY'] {content!r}" for content in meta["registered_model_meta"][:2])
    assert load(uri, view, *uris) == [as_text, as_text, as_text, as_number]
    archive = Archive(tmp_path / "archive")
    assert archive.check_view("v1", archive.take(shouter, **LIMITS), meta) == ()


def test_without_the_file_in_its_place_a_load_would_leave_compiled_code(tmp_path: Path, shouter: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shouter, copy)
    (copy / "registered_model_meta").touch()
    assert load("sqlite://", copy, str(copy)) == ["['HEY'] b''"]
    assert list(copy.rglob("*.pyc"))
