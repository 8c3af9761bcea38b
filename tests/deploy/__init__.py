"""The files of examples/docker, kubernetes and collector: validated, and run as far as possible without an engine."""
