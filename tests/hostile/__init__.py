"""Hostile surroundings: requests, servers and disks, broken or malicious. A new one is a few lines.

- ``requests``: requests that a client may send;
- ``servers``: servers that may answer instead of an MLflow server;
- ``disks``: files that a spool directory may contain.
"""
