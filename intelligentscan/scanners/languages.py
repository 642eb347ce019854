"""Which language a file is in, by its suffix, under the names that engines with rule files use for it."""

from collections.abc import Iterable
from pathlib import PurePosixPath

_LANGUAGES: dict[str, tuple[str, ...]] = {
    ".py": ("python", "py"), ".pyi": ("python", "py"), ".pyw": ("python", "py"),
    ".js": ("javascript", "js"), ".jsx": ("javascript", "js", "jsx"), ".mjs": ("javascript", "js"),
    ".cjs": ("javascript", "js"), ".ts": ("typescript", "ts"), ".mts": ("typescript", "ts"),
    ".cts": ("typescript", "ts"), ".tsx": ("tsx", "typescript", "ts"),
    ".java": ("java",), ".kt": ("kotlin", "kt"), ".kts": ("kotlin", "kt"), ".scala": ("scala",),
    ".go": ("go", "golang"), ".rs": ("rust", "rs"), ".rb": ("ruby", "rb"), ".php": ("php",), ".swift": ("swift",),
    ".c": ("c",), ".h": ("c", "cpp", "c++"), ".cc": ("cpp", "c++"), ".cpp": ("cpp", "c++"), ".hpp": ("cpp", "c++"),
    ".cs": ("csharp", "c#", "cs"), ".sh": ("bash", "sh"), ".bash": ("bash", "sh"), ".lua": ("lua",),
    ".ex": ("elixir", "ex"), ".exs": ("elixir", "ex"), ".hs": ("haskell", "hs"), ".sol": ("solidity", "sol"),
    ".tf": ("hcl", "terraform", "tf"), ".hcl": ("hcl", "terraform"), ".nix": ("nix",),
    ".yaml": ("yaml", "yml"), ".yml": ("yaml", "yml"), ".json": ("json",), ".html": ("html",), ".css": ("css",),
}  # fmt: skip
ANY = frozenset({"generic", "regex", "none"})
"""Languages of rules that apply to any text."""


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all languages."""
    return tuple(_LANGUAGES)


def is_in(path: str, languages: Iterable[str]) -> bool:
    """Tell whether a file is in one of the languages, given in lower case."""
    names = frozenset(languages)
    return bool(names & ANY) or not names.isdisjoint(_LANGUAGES.get(PurePosixPath(path).suffix.lower(), ()))
