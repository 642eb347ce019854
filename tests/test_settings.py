"""Settings: environment, then config.toml, then defaults; which store they name and how it is spelled."""

import os
from pathlib import Path

import pytest
from conftest import run_plain

from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.settings import Settings, home_from_environment, shown_uri, sqlite_path, sqlite_uri
from intelligentscan.store_environment import exports


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_without_any_setting_runs_go_to_one_sqlite_file_in_the_users_data_folder() -> None:
    settings = Settings.load()
    assert settings.embedded
    assert settings.home.is_absolute()
    assert sqlite_path(settings.store_uri) == settings.home / "mlflow.db"
    assert settings.artifact_root == str(settings.home / "artifacts")


def test_the_environment_wins_over_config_toml_and_that_over_defaults(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "config.toml").write_text('deadline_s = 7\nread_only = true\nexclude_tools = ["promote"]\n')
    monkeypatch.setenv("INTELLIGENTSCAN_DEADLINE_S", "8")
    settings = Settings.load()
    assert (settings.deadline_s, settings.read_only, settings.exclude_tools) == (8.0, True, ("promote",))
    assert settings.toolsets is None


def test_an_argument_wins_over_everything(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.toml").write_text("deadline_s = 9\n")
    monkeypatch.setenv("INTELLIGENTSCAN_READ_ONLY", "1")
    settings = Settings.load(home=tmp_path / "other", read_only=False)
    assert (settings.home, settings.deadline_s, settings.read_only) == (tmp_path / "other", 9.0, False)


def test_an_empty_variable_counts_as_unset(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "INTELLIGENTSCAN_TOOLSETS", "INTELLIGENTSCAN_HOME"):
        monkeypatch.setenv(name, "")
    settings = Settings.load(home=own_home)
    assert settings.embedded
    assert settings.toolsets is None
    assert home_from_environment().is_absolute()


@pytest.mark.parametrize("name", ["tracking_uri", "MLFLOW_TRACKING_URI"])
def test_config_toml_may_name_the_store(own_home: Path, name: str) -> None:
    (own_home / "config.toml").write_text(f'{name} = "http://tracking.example:5000"\n')
    assert Settings.load().store_uri == "http://tracking.example:5000"


def test_lists_are_split_and_roots_made_absolute(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_TOOLSETS", " tracking, scan,,")
    monkeypatch.setenv("INTELLIGENTSCAN_ALLOWED_ROOTS", os.pathsep.join(["/a", "b", ""]))
    settings = Settings.load()
    assert settings.toolsets == ("tracking", "scan")
    assert settings.allowed_roots == (Path("/a"), Path.cwd() / "b")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("deadline_s = -1", "DEADLINE_S"),
        ("deadline_s = 'soon'", "DEADLINE_S"),
        ("deadline_s = nan", "DEADLINE_S"),
        ("this is no toml", "config.toml"),
        ("deadline_s = 1\x00", "config.toml"),
        ("allowed_roots = 5", "ALLOWED_ROOTS"),
        ("allowed_roots = [5]", "ALLOWED_ROOTS"),
        ("toolsets = 5", "TOOLSETS"),
    ],
)
def test_a_wrong_setting_is_named(own_home: Path, text: str, named: str) -> None:
    (own_home / "config.toml").write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        Settings.load()
    assert named in caught.value.message + caught.value.next
    assert caught.value.next


def test_config_toml_of_bytes_that_are_no_text_is_named(own_home: Path) -> None:
    (own_home / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match=r"config\.toml"):
        Settings.load()


def test_a_home_below_an_unknown_users_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", "~nobody-has-this-name/data")
    with pytest.raises(InvalidArgument) as caught:
        Settings.load()
    assert "INTELLIGENTSCAN_HOME" in caught.value.next


def test_settings_are_frozen_and_can_be_compared(own_home: Path) -> None:
    assert Settings.load() == Settings.load()
    assert hash(Settings.load()) == hash(Settings.load())
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().read_only = True  # type: ignore[misc]


@pytest.mark.parametrize(
    "path", ["/a/b.db", "/with space/ünï.db", "/100%41/x.db", "/a?b/x.db", "/a#b/x.db", "/100%/x.db", "/%2525/x.db"]
)
def test_a_sqlite_uri_leads_back_to_its_path_and_databases_read_it_the_same(path: str) -> None:
    from sqlalchemy import make_url

    assert sqlite_path(sqlite_uri(Path(path))) == Path(path)
    assert make_url(sqlite_uri(Path(path))).database == path
    assert Settings(home=Path("/h"), tracking_uri=sqlite_uri(Path(path))).store_uri == sqlite_uri(Path(path))


def test_a_relative_sqlite_uri_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=tmp_path / "home", tracking_uri="sqlite:///sub/runs.db?timeout=5")
    assert settings.store_uri == f"sqlite:///{tmp_path}/sub/runs.db"
    assert settings.artifact_root == str(tmp_path / "sub" / "mlruns")
    assert settings.is_sqlite
    assert not settings.embedded


def test_naming_the_embedded_store_in_full_is_the_same_as_the_default(tmp_path: Path) -> None:
    named = Settings(home=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert named.embedded
    assert named.artifact_root == Settings(home=tmp_path).artifact_root


@pytest.mark.parametrize("uri", ["http://host:5000", "databricks", "databricks://profile", "file:///x", "/x/mlruns"])
def test_other_stores_are_taken_as_they_are(tmp_path: Path, uri: str) -> None:
    settings = Settings(home=tmp_path, tracking_uri=uri)
    assert (settings.store_uri, settings.is_sqlite, settings.embedded) == (uri, False, False)
    assert settings.artifact_root is None


def test_artifacts_of_a_database_without_a_server_have_one_place_whatever_the_working_directory(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path, tracking_uri="postgresql://user:secret@host/db")
    assert settings.artifact_root == str(tmp_path / "artifacts")
    assert exports(settings)["_MLFLOW_SERVER_ARTIFACT_ROOT"] == str(tmp_path / "artifacts")


def test_a_uri_is_shown_without_its_credentials() -> None:
    assert shown_uri("postgresql://user:secret@host:5432/db") == "postgresql://host:5432/db"
    assert shown_uri("https://token@host/x?y=1") == "https://host/x?y=1"
    assert shown_uri("sqlite:////a@b/x.db") == "sqlite:////a@b/x.db"


NO_HOME = """
import os
from intelligentscan.app import build
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.settings import Settings
os.setgid(54321)
os.setuid(54321)
try:
    build(Settings.load())
except InvalidArgument as error:
    print(error.next)
os.environ["INTELLIGENTSCAN_HOME"] = "/elsewhere"
print(build(Settings.load()).settings.home)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without an account")
def test_a_user_without_an_account_needs_only_to_name_a_home() -> None:
    ended = run_plain(NO_HOME)
    assert ended.stdout.splitlines() == ["set INTELLIGENTSCAN_HOME to an absolute path.", "/elsewhere"], ended.stderr


def test_programs_of_engines_are_absolute_paths(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().engine_programs == ()
    (own_home / "config.toml").write_text('engine_programs = ["/opt/a/semgrep", "/opt/b/checkov"]\n')
    assert Settings.load().engine_programs == (Path("/opt/a/semgrep"), Path("/opt/b/checkov"))
    monkeypatch.setenv("INTELLIGENTSCAN_ENGINE_PROGRAMS", f"/opt/c/semgrep{os.pathsep}/usr/bin/python3")
    assert Settings.load().engine_programs == (Path("/opt/c/semgrep"), Path("/usr/bin/python3"))
    monkeypatch.setenv("INTELLIGENTSCAN_ENGINE_PROGRAMS", "bin/semgrep")
    with pytest.raises(InvalidArgument, match="engine_programs is wrong"):
        Settings.load()
