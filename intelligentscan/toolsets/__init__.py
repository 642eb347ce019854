"""The MCP face: toolsets, published schemas, answers and errors. Here: the built-in toolsets, by name."""

from intelligentscan.toolsets.governance import Governance
from intelligentscan.toolsets.registry import Registry
from intelligentscan.toolsets.scan import Scan
from intelligentscan.toolsets.toolset import Toolset
from intelligentscan.toolsets.tracking import Tracking

BUILT_IN: dict[str, type[Toolset]] = {toolset.name: toolset for toolset in (Tracking, Scan, Registry, Governance)}
