"""Keys of endpoints, named where they are configured and read on the worker that sends them.

    key = read_secret("projects/my-project/secrets/vendor-key/versions/latest")

The value goes into no setting, message, log or record, and is pickled nowhere: a pipeline carries the name alone.
"""

from __future__ import annotations

import re
from typing import Any

from model_handlers.endpoint_answers import EndpointError

_SECRET = re.compile(r"projects/[a-z0-9][a-z0-9.:-]{1,61}/secrets/[A-Za-z0-9_-]{1,255}/versions/(latest|[1-9][0-9]*)")
#: With repetitions while the service stumbles: a worker that sets up waits no longer.
DEADLINE_S = 30.0


def check_secret(name: Any) -> None:
    """Raise `ValueError` unless it is empty or names a version of a secret; the message never repeats it."""
    # It may be the key itself, written there by mistake.
    if not isinstance(name, str) or (name and not _SECRET.fullmatch(name)):
        raise ValueError("key_secret must be projects/PROJECT/secrets/NAME/versions/VERSION, never the key itself")


def is_key(text: str) -> bool:
    """Whether a text can be a key: something, and nothing that a header cannot hold or a slip of the hand left."""
    return bool(re.fullmatch(r"[!-~]+", text))


def read_secret(name: str, client: Any = None, deadline_s: float = DEADLINE_S) -> str:
    """Read a version of a secret from Secret Manager.

    Args:
      client: default: Google's, with the application's own credentials.

    Raises:
      EndpointError: it cannot be read; the message says what to do.
    """
    try:
        from google.api_core import exceptions as api
        from google.api_core.retry import Retry, if_exception_type
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
        from google.cloud import secretmanager
    except ImportError as error:
        raise EndpointError(f"to read {name}, run: pip install 'reelscribe[gcp]'") from error
    retry = Retry(predicate=if_exception_type(api.ServiceUnavailable, api.InternalServerError), timeout=deadline_s)
    try:
        client = client or secretmanager.SecretManagerServiceClient(transport="rest")
        answer = client.access_secret_version(request={"name": name}, timeout=deadline_s, retry=retry)
    except (api.Forbidden, api.Unauthorized) as error:
        told = "it takes the role roles/secretmanager.secretAccessor on the secret"
        raise EndpointError(f"{name} may not be read; {told}") from error
    except api.NotFound as error:
        raise EndpointError(f"there is no {name}; gcloud secrets versions list shows those there are") from error
    except DefaultCredentialsError as error:
        told = "gcloud auth application-default login"
        raise EndpointError(f"there are no credentials to read {name} with; run: {told}") from error
    except (api.GoogleAPIError, GoogleAuthError, OSError) as error:
        # What Google's client says of a request that never was answered holds no secret.
        raise EndpointError(f"{name} cannot be read now: {' '.join(str(error).split())[:300]}") from error
    try:
        key = bytes(answer.payload.data).decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not is_key(key):
        raise EndpointError(f"{name} holds no key but a text with blanks or odd characters, or nothing")
    return key
