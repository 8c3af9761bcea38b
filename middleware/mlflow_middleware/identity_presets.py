"""Presets of the option ``identity_preset``: where platforms and chat interfaces put the ids of a request.

Each preset follows its platform's documentation, at the address given. A preset is safe only if no client can bypass
the platform: the ids arrive as headers, which any client could send itself.
"""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """The sources of the ids on one platform; for an empty list, the id is read from the header.

    Attributes:
        documented: The URL of the platform's documentation.
        request_id: Sources of the request id.
        session_id: Sources of the session id.
        user_id: Sources of the user id.
        after: The delimiter after a prefix of the values that is not part of the id; empty for none.
    """

    documented: str
    request_id: tuple[str, ...] = ()
    session_id: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    after: str = ""

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """The sources of the request id, the session id and the user id."""
        return self.request_id, self.session_id, self.user_id


NONE = Preset("")

PRESETS = {
    "databricks-apps": Preset(
        "https://docs.databricks.com/aws/dev-tools/databricks-apps/http-headers",
        request_id=("header.X-Request-Id",),
        user_id=("header.X-Forwarded-User", "header.X-Forwarded-Email"),
    ),
    "open-webui": Preset(  # with ENABLE_FORWARD_USER_INFO_HEADERS=true
        "https://docs.openwebui.com/reference/env-configuration",
        session_id=("header.X-OpenWebUI-Chat-Id",),
        user_id=("header.X-OpenWebUI-User-Id", "header.X-OpenWebUI-User-Email"),
    ),
    "librechat": Preset(  # `user` is in the body by default, the headers are spelled as in its documentation
        "https://www.librechat.ai/docs/configuration/librechat_yaml/object_structure/shared_endpoint_settings",
        session_id=("header.X-Conversation-Id",),
        user_id=("header.X-User-ID", "body.user"),
    ),
    "cloudflare-access": Preset(
        "https://developers.cloudflare.com/cloudflare-one/access-controls/applications/http-apps/",
        request_id=("header.X-Request-ID", "header.CF-Ray"),
        user_id=("header.Cf-Access-Authenticated-User-Email",),
    ),
    "azure-easy-auth": Preset(
        "https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities",
        user_id=("header.X-MS-CLIENT-PRINCIPAL-ID", "header.X-MS-CLIENT-PRINCIPAL-NAME"),
    ),
    "iap": Preset(  # accounts.google.com:1234; only the part after the colon is the id
        "https://cloud.google.com/iap/docs/identity-howto",
        user_id=("header.X-Goog-Authenticated-User-Id", "header.X-Goog-Authenticated-User-Email"),
        after=":",
    ),
}
"""Name of the preset -> preset."""
