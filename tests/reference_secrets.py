"""The secrets on the page of privacy: keys from the code, and an example of each kind of value."""

from __future__ import annotations

from mlflow_middleware.capture.secret_keys import KEYS, LAST, Kind

_TAIL = "a1B2c3D4e5" * 4

VALUES = {
    "`sk-…` (OpenAI, Anthropic and others)": f"sk-{_TAIL}",
    "`sk_live_…`, `rk_test_…`": f"sk_live_{_TAIL} rk_test_{_TAIL}",
    "`whsec_…` (Stripe)": f"whsec_{_TAIL}",
    "`ghp_…`": f"ghp_{_TAIL}",
    "`github_pat_…`": f"github_pat_{_TAIL}",
    "`glpat-…`": f"glpat-{_TAIL}",
    "`AKIA…` (AWS)": "AKIA" + "A1B2C3D4" * 2,
    "`xox…`": f"xoxb-{_TAIL}",
    "`xapp-…` (Slack)": f"xapp-{_TAIL}",
    "`AIza…` (Google)": f"AIza{_TAIL}"[:39],
    "`hf_…`": f"hf_{_TAIL}",
    "`npm_…`": f"npm_{_TAIL}",
    "`gsk_…`": f"gsk_{_TAIL}",
    "`dapi…` (Databricks)": "dapi" + "a1" * 16,
    "`SG.…` (SendGrid)": f"SG.{_TAIL}.{_TAIL}",
    "those of about thirty other providers with a beginning of their own, such as `r8_…`": f"r8_{_TAIL}",
    "`pplx-…`": f"pplx-{_TAIL}",
    "`nvapi-…`": f"nvapi-{_TAIL}",
    "Slack's webhooks": f"hooks.slack.com/services/{_TAIL}",
    "Discord's webhooks": f"discord.com/api/webhooks/1/{_TAIL}",
    "JSON web tokens": f"eyJ{_TAIL}.{_TAIL}.{_TAIL}",
    "PEM private keys": f"-----BEGIN PRIVATE KEY-----\n{_TAIL}\n-----END PRIVATE KEY-----",
    "`Token …` with hexadecimal digits": "Token " + "a1" * 16,
    "`Bearer …`": f"Bearer {_TAIL}",
    "`bearer …` with five characters": "bearer abc123",
    "`Basic …`": "Basic amFuZTpzZWNyZXQ=",
    "`scheme://user:password@host`": "https://jane:hunter2@example.com",
    "`scheme://token@host`": f"https://{_TAIL}@example.com",
}
"""Value, as the page names it -> an example. Each built-in pattern has at least one."""

WHEN: dict[Kind, str] = {
    "always": "always",
    "text": "if the value is text",
    "digits": "if the value is a number of 3 to 12 digits",
    "opaque": "if the value looks like a secret: letters and digits mixed, or a long number",
    "long": "if the value has 20 or more letters and digits, mixed",
}
"""Condition of a key that is an ordinary word elsewhere -> in words."""


def keys() -> str:
    """Return the built-in keys: those that count anywhere in a key, and those that count as its last word."""
    lines = [f"- {', '.join(f'`{key}`' for key in KEYS)}: always, as words anywhere in the key"]
    for kind, when in WHEN.items():
        words = ", ".join(f"`{word}`" for word, of_word in LAST.items() if of_word == kind)
        lines.append(f"- {words}, as the last word: {when}")
    return "\n".join(lines)


def values() -> str:
    """Return the kinds of values."""
    return ", ".join(VALUES)
