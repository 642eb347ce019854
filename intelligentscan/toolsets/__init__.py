"""The MCP face: toolsets, published schemas, answers and errors."""
