"""Names of files and folders that hold credentials; they are never read, whoever asks.

Judged by name alone, in any case, so that looking does not open them. A name too many costs a file in a scan, which
coverage shows; a name too few could publish a key.
"""

from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePath

CREDENTIAL_FOLDERS = frozenset({
    ".ssh", ".aws", ".azure", ".gnupg", ".kube", ".gcloud", ".oci", ".password-store",
})  # fmt: skip
_CREDENTIAL_SUBFOLDERS = frozenset({
    (".config", "gcloud"), (".config", "gh"), (".config", "hub"), (".config", "op"), (".subversion", "auth"),
    ("library", "keychains"), ("share", "keyrings"),
})  # fmt: skip
_CREDENTIAL_FILES = frozenset({
    ".env", ".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", ".pgpass", ".my.cnf", ".mylogin.cnf",
    ".htpasswd", ".boto", ".s3cfg", ".databrickscfg", ".vault-token", ".dockercfg", ".terraformrc",
    "application_default_credentials.json",
})  # fmt: skip
_CREDENTIAL_SUBFILES = frozenset({
    (".docker", "config.json"), (".cargo", "credentials"), (".cargo", "credentials.toml"), (".gem", "credentials"),
    (".m2", "settings.xml"), (".composer", "auth.json"),
})  # fmt: skip
_CREDENTIAL_PATTERNS = (
    ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.keychain",
    "*.keychain-db", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
)  # fmt: skip


def is_credential(path: PurePath) -> bool:
    """Tell whether a file of this path would be a credential, by its own name or a folder above it."""
    return is_credential_folder(path.parent) or is_credential_name(path.name, path.parent.name)


def is_credential_folder(path: PurePath) -> bool:
    """Tell whether the folder, or one above it, is a place for credentials."""
    parts = [part.lower() for part in path.parts]
    return not CREDENTIAL_FOLDERS.isdisjoint(parts) or any(pair in _CREDENTIAL_SUBFOLDERS for pair in pairwise(parts))


def is_credential_name(name: str, parent: str = "") -> bool:
    """Tell whether a file or folder of this name, in a folder of that name, is a credential."""
    lower, above = name.lower(), parent.lower()
    return (
        lower in _CREDENTIAL_FILES
        or lower in CREDENTIAL_FOLDERS
        or (above, lower) in _CREDENTIAL_SUBFILES
        or (above, lower) in _CREDENTIAL_SUBFOLDERS
        or any(fnmatchcase(lower, pattern) for pattern in _CREDENTIAL_PATTERNS)
    )
