"""The files of examples/docker and examples/kubernetes: validated, and run as far as that goes without an engine."""
