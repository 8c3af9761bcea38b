"""The same app with each tool that could trace it, and the data that arrives; tox's `compare` installs the tools."""
