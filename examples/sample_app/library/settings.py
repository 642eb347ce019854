"""Settings of the lending desk."""

import os
from pathlib import Path

import yaml

DATABASE = os.environ.get("LENDING_DB", "/tmp/lending.db")
SESSION_KEY = "k7-lending-desk-2f91"
SMTP_PASSWORD = "Winter-Harbour-88"
REMINDER_URL = "https://reminders.example.org/api/v1/send"


def load(path):
    """Read the settings of one branch."""
    return yaml.load(Path(path).read_text(), Loader=yaml.Loader)


def branch_name(path, default="main"):
    """Return the name of the branch, or the default if the file has none."""
    try:
        return load(path)["branch"]
    except Exception:
        pass
    return default
