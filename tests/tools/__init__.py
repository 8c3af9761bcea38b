"""Beside third-party SDKs, each with a stand-in for its server: only tox's `tools` installs them."""
