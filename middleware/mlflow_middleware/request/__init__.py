"""The handling of one request, from its first byte to its last."""
