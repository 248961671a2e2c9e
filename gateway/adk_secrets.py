"""Credentials in what google-adk's agents left in a session, taken out before it is shown.

A tool of google-adk's that asks for a login puts its ``AuthConfig`` into an event. Its own
server strips the secrets from every answer, by the rules that are repeated here.
"""

from __future__ import annotations

from perdure.types import Json, JsonObject

__all__ = ["without_secrets"]

_SECRETS = frozenset(
    {
        "password",
        "token",
        "additionalHeaders",
        "additional_headers",
        "clientSecret",
        "client_secret",
        "authResponseUri",
        "auth_response_uri",
        "authCode",
        "auth_code",
        "accessToken",
        "access_token",
        "refreshToken",
        "refresh_token",
        "idToken",
        "id_token",
        "codeVerifier",
        "code_verifier",
        "privateKeyId",
        "private_key_id",
        "privateKey",
        "private_key",
        "apiKey",
        "api_key",
    }
)
_AUTH_TYPES = frozenset(
    {
        *("apiKey", "http", "oauth2", "openIdConnect", "serviceAccount"),
        *("API_KEY", "HTTP", "OAUTH2", "OPEN_ID_CONNECT", "SERVICE_ACCOUNT"),
        *("api_key", "open_id_connect", "service_account"),
    }
)
_CONFIGS = frozenset({"requestedAuthConfigs", "requested_auth_configs"})
_CREDENTIALS = frozenset(
    {"rawAuthCredential", "raw_auth_credential", "exchangedAuthCredential", "exchanged_auth_credential"}
)
_ASKS_FOR_LOGIN = "adk_request_credential"


def without_secrets(value: Json) -> Json:
    """The value without what a credential in it must not tell."""
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    if any(value.get(name) in _AUTH_TYPES for name in ("authType", "auth_type") if _is_text(value.get(name))):
        return _stripped(value)
    if value.get("name") == _ASKS_FOR_LOGIN:
        return {name: _of_call(name, item) for name, item in value.items()}
    secret = _CONFIGS | _CREDENTIALS
    return {
        name: _stripped(item) if name in secret else without_secrets(item) for name, item in value.items()
    }


def _of_call(name: str, value: Json) -> Json:
    if name == "response":
        return _stripped(value)
    if name == "args" and isinstance(value, dict):
        configs = ("authConfig", "auth_config")
        args: JsonObject = {key: _stripped(item) if key in configs else item for key, item in value.items()}
        return args
    return without_secrets(value)


def _stripped(value: Json) -> Json:
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    if isinstance(value, dict):
        return {name: _stripped(item) for name, item in value.items() if name not in _SECRETS}
    return value


def _is_text(value: Json) -> bool:
    return isinstance(value, str)
