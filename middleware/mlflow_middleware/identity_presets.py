"""The ids as platforms and chat interfaces send them to the app behind them: the option ``identity_preset``.

Each is what its platform documents, at the address given. They hold only if nobody reaches the app past the platform:
these are headers, which any client could send itself.
"""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """Where a platform says who asks; an empty list leaves that id to the header.

    Attributes:
        documented: The address of its documentation.
        request_id: Sources of the request id.
        session_id: Sources of the session id.
        user_id: Sources of the user id.
        after: What ends a prefix of its values that is no part of the id; empty for none.
    """

    documented: str
    request_id: tuple[str, ...] = ()
    session_id: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    after: str = ""

    @property
    def lists(self) -> tuple[tuple[str, ...], ...]:
        """The three lists."""
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
    "librechat": Preset(  # `user` is in the body by default, the headers as its documentation writes them
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
    "iap": Preset(  # accounts.google.com:1234, without what stands before the colon
        "https://cloud.google.com/iap/docs/identity-howto",
        user_id=("header.X-Goog-Authenticated-User-Id", "header.X-Goog-Authenticated-User-Email"),
        after=":",
    ),
}
"""Name -> what is read."""
