"""Hostile surroundings: requests, servers and disks that a bad day or a bad client can bring. A new one is a few lines.

- ``requests``: what a client may send;
- ``servers``: what may stand where an MLflow server should;
- ``disks``: what a spool directory may hold.
"""
