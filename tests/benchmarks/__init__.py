"""What tracing costs, in the ways that users could pick, side by side."""
