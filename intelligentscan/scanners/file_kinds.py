"""Which files are Dockerfiles, workflows or requirements: by their names, as their own tools find them."""

import re
from pathlib import PurePosixPath

_DOCKER = re.compile(
    r"(?:docker|container)file(?:[._-][A-Za-z0-9._-]+)?|[A-Za-z0-9._-]+\.(?:docker|container)file", re.I
)
_NOT_DOCKER = frozenset({".dockerignore", ".py", ".js", ".ts", ".go", ".java", ".md", ".rst", ".json", ".sh", ".html"})
_WORKFLOW = re.compile(r"(?:^|/)\.github/workflows/[^/]+\.ya?ml$", re.I)
_NAMED_BY_GITHUB = re.compile(r"(?:^|/)(?:action|\.github/dependabot)\.ya?ml$", re.I)
_REQUIREMENTS = re.compile(r"(?:^|/)(?:(?:requirements|constraints)[^/]*\.txt|requirements/[^/]+\.txt)$", re.I)


def is_dockerfile(path: str) -> bool:
    """Tell whether a file is a Dockerfile: Dockerfile, Dockerfile.dev, web.dockerfile, Containerfile."""
    name = PurePosixPath(path)
    return _DOCKER.fullmatch(name.name) is not None and name.suffix.lower() not in _NOT_DOCKER


def is_workflow(path: str) -> bool:
    """Tell whether a file is a workflow of GitHub Actions."""
    return _WORKFLOW.search(path) is not None


def github_name(path: str) -> str | None:
    """Return the name by which GitHub knows a file, such as action.yml, or None if its name does not matter."""
    found = _NAMED_BY_GITHUB.search(path)
    return found[0].rpartition("/")[2].lower() if found else None


def is_requirements(path: str) -> bool:
    """Tell whether a file lists Python requirements for pip."""
    return _REQUIREMENTS.search(path) is not None
