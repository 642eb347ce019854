"""What a toolset is: a class that receives the services and whose marked methods are agent tools.

The method is the whole definition: its name, its docstring (the published description), its annotated
arguments and the noun it returns. `tool` adds what Python cannot say: title, the four hints, and where to
ask for what a long answer had to leave out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from intelligentscan.app import Services

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])
_TOOL = "_intelligentscan_tool"
_RESOURCE = "_intelligentscan_resource"


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """What is published about a tool besides its signature."""

    title: str
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    rest: str
    by_default: bool


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """A resource template: its URI with named parts, and the type of its text."""

    uri: str
    title: str
    mime_type: str


class Toolset:
    """A named group of tools that is switched on or off together."""

    name: ClassVar[str]

    def __init__(self, services: "Services") -> None:
        self.services = services


def tool(
    *,
    title: str,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = False,
    rest: str = "",
    by_default: bool = True,
) -> Callable[[Method], Method]:
    """Mark a method of a toolset as an agent tool.

    Args:
        title: name for people.
        read_only: it changes nothing.
        destructive: it can take something away that was there before.
        idempotent: the same call again changes nothing more.
        open_world: it reaches beyond this machine and its store.
        rest: the call that returns what an answer over the cap leaves out.
        by_default: it is offered without being named.
    """
    facts = ToolFacts(title, read_only, destructive, idempotent, open_world, rest, by_default)

    def mark(method: Method) -> Method:
        setattr(method, _TOOL, facts)
        return method

    return mark


def resource(*, uri: str, title: str, mime_type: str) -> Callable[[Method], Method]:
    """Mark a method of a toolset as the reader of a resource template; its arguments are the parts of the URI."""
    facts = ResourceFacts(uri, title, mime_type)

    def mark(method: Method) -> Method:
        setattr(method, _RESOURCE, facts)
        return method

    return mark


def tools_of(toolset: type[Toolset]) -> dict[str, ToolFacts]:
    """Return the tools of a toolset by name, in the order they are written."""
    return {name: facts for name, member in vars(toolset).items() if (facts := getattr(member, _TOOL, None))}


def resources_of(toolset: type[Toolset]) -> dict[str, ResourceFacts]:
    """Return the resource templates of a toolset by method name, in the order they are written."""
    return {name: facts for name, member in vars(toolset).items() if (facts := getattr(member, _RESOURCE, None))}
