"""The same app with each tool that could trace it, and what arrives: only the environment `compare` has the tools."""
