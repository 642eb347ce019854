"""Private folders for temporary work."""

import os
import stat
import tempfile
from pathlib import Path

import anyio
import pytest

from intelligentscan._private_folder import private_folder

LOCK = ".intelligentscan-work-lock"


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_only_this_user_can_enter_and_it_is_gone_afterwards(temporary):
    async with private_folder() as folder:
        (folder / "file").write_text("x")
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == [folder / "file"]

    assert list(temporary.iterdir()) == []


async def test_it_is_gone_after_a_cancellation(temporary):
    with anyio.CancelScope() as scope:
        async with private_folder():
            scope.cancel()
            await anyio.sleep(10)

    assert list(temporary.iterdir()) == []


async def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(temporary):
    left = temporary / "intelligentscan-work-left"
    left.mkdir(mode=0o700)
    (left / LOCK).touch()
    os.utime(left / LOCK, (0, 0))

    async with private_folder() as used:
        os.utime(used.parent / LOCK, (0, 0))
        async with private_folder():
            assert used.exists()
            assert not left.exists()


async def test_links_and_folders_without_our_lock_are_left_alone(temporary, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / LOCK).touch()
    os.utime(elsewhere / LOCK, (0, 0))
    (temporary / "intelligentscan-work-link").symlink_to(elsewhere)
    (temporary / "intelligentscan-work-other").mkdir()

    async with private_folder():
        pass

    assert (elsewhere / LOCK).exists()
    assert (temporary / "intelligentscan-work-other").exists()
