"""Beside the SDKs of others, each with a stand-in for where it sends: only the environment `tools` has them."""
