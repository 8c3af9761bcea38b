"""Modules shared by several packages; not a public API."""
