"""A redacted secret is known again by a keyed digest, and a changed one is another finding."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sarif_samples import at, log, result, run

from intelligentscan._local_key import KEY_BYTES, LOCAL_KEY, local_key
from intelligentscan.app import Services, build
from intelligentscan.domain.errors import KeyUnavailable
from intelligentscan.domain.scan import ScanRun
from intelligentscan.scanners.findings_file import read_findings
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.secret_digest import SecretDigests
from intelligentscan.settings import Settings

FIRST, SECOND = "harbour-" + "lamp-41", "meadow-" + "stone-77"


class TestLocalKey:
    def test_it_is_made_once_for_this_account_alone_and_differs_by_purpose(self, tmp_path: Path) -> None:
        home = tmp_path / "new" / "home"
        key = local_key(home, "a/1")
        assert len(key) == KEY_BYTES
        assert local_key(home, "a/1") == key != local_key(home, "b/1")
        assert stat.S_IMODE((home / LOCAL_KEY).stat().st_mode) == 0o600
        assert [path.name for path in home.iterdir()] == [LOCAL_KEY]
        assert key != (home / LOCAL_KEY).read_bytes() != local_key(tmp_path / "other", "a/1")

    def test_many_at_once_on_an_empty_home_agree(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda _: local_key(tmp_path / "home", "a/1"), range(32)))) == 1
        assert [path.name for path in (tmp_path / "home").iterdir()] == [LOCAL_KEY]

    @pytest.mark.parametrize("harm", ["open", "short", "link", "folder"])
    def test_a_key_that_others_may_know_or_that_is_damaged_is_refused(self, tmp_path: Path, harm: str) -> None:
        path = tmp_path / LOCAL_KEY
        local_key(tmp_path, "a/1")
        if harm == "open":
            path.chmod(0o640)
        elif harm == "short":
            path.write_bytes(b"x")
        else:
            path.rename(tmp_path / "elsewhere")
            path.symlink_to("elsewhere") if harm == "link" else path.mkdir()
        with pytest.raises(KeyUnavailable) as refused:
            local_key(tmp_path, "a/1")
        assert LOCAL_KEY in refused.value.next


class TestDigests:
    def test_equal_values_have_equal_digests_and_nothing_of_the_value_is_in_them(self) -> None:
        one, other = SecretDigests(b"k" * 32), SecretDigests(b"o" * 32)
        assert one.digest(FIRST) == one.digest(FIRST) != one.digest(SECOND)
        assert one.digest(FIRST) != other.digest(FIRST)
        assert one.digest(FIRST).partition(":")[0] == one.key_id != other.key_id
        assert b"k" * 8 not in repr(one).encode()

    def test_only_findings_about_secrets_have_one_and_what_shows_the_value_does_not_matter(self) -> None:
        line = f'password = "{FIRST}"'
        told = result("B105", f"Possible hardcoded password: '{FIRST}'", at("a.py", 1))
        shown = result(
            "S105", 'Possible hardcoded password assigned to: "password"', at("a.py", 1, snippet={"text": line})
        )
        silent = result("S105", "Possible hardcoded password", at("a.py", 2))
        other = result("R1", f"see {FIRST}", at("a.py", 1, snippet={"text": line}))
        reading = read_sarif(log(run([told, shown, silent, other])), digests=SecretDigests(b"k" * 32))
        digests = [finding.secret_digest for finding in reading.findings]
        assert digests[0] == digests[1] == SecretDigests(b"k" * 32).digest(FIRST)
        assert digests[2:] == [None, None]
        assert {f.secret_digest for f in read_sarif(log(run([told, shown]))).findings} == {None}

    def test_fingerprints_are_the_same_on_every_machine(self) -> None:
        document = log(run([result("B105", f"Possible hardcoded password: '{FIRST}'", at("a.py", 1))]))
        keys = [SecretDigests(b"k" * 32), SecretDigests(b"o" * 32), None]
        assert len({read_sarif(document, digests=key).findings[0].fingerprint for key in keys}) == 1


def _write(project: Path, value: str, *, above: str = "") -> None:
    (project / "app.py").write_text(f'{above}import os\n\n\npassword = "{value}"\nassert os\n')


async def _scan(services: Services, project: Path, **more: str) -> ScanRun:
    return await services.scans.scan(str(project), experiment="scans", create_missing=True, engines=["ruff"], **more)  # type: ignore[arg-type]


class TestScans:
    async def test_a_changed_value_on_the_same_line_is_a_new_finding_and_a_moved_one_is_not(
        self, services: Services, project: Path
    ) -> None:
        _write(project, FIRST)
        await _scan(services, project)
        _write(project, FIRST, above="# more\n" * 5)
        moved = await _scan(services, project)
        assert (moved.new, moved.fixed, moved.persisting) == (0, 0, 2)
        _write(project, SECOND, above="# more\n" * 5)
        changed = await _scan(services, project)
        assert (changed.new, changed.fixed, changed.persisting) == (1, 1, 1)

    async def test_digests_of_two_installations_are_not_compared(
        self, services: Services, home: Path, project: Path
    ) -> None:
        _write(project, FIRST)
        await _scan(services, project)
        (home / LOCAL_KEY).unlink()
        again = await _scan(build(Settings(home=home, allowed_roots=(project,))), project)
        assert (again.new, again.fixed, again.persisting) == (0, 0, 2)

    async def test_without_a_usable_key_the_scan_is_logged_and_says_what_it_lacks(
        self, services: Services, home: Path, project: Path
    ) -> None:
        local_key(home, "a/1")
        (home / LOCAL_KEY).chmod(0o644)
        _write(project, FIRST)
        scanned = await _scan(services, project)
        assert scanned.vulnerabilities_found == 2
        assert any(LOCAL_KEY in warning for warning in scanned.warnings)
        (path,) = (home / "artifacts").rglob("findings.jsonl")
        assert {finding.secret_digest for finding in read_findings(path)} == {None}
