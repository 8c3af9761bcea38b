"""The cost of tracing with each of the ways that users could pick, side by side."""
