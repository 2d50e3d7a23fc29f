"""Links of a report to clip files in a bucket, which open without any right for a while.

    links = links_for("gs://bucket/dataset", datetime.timedelta(hours=12))       # or raises LinkError
    links.of({"clip_id": "a-0-4000", "clip_file": "media/a-0-4000.mp4"})         # "https://storage.googleapis.com/..."

A link carries a V4 signature: of a service account's key where that is here, which asks nobody, else of IAM's signBlob,
one request a link. Only the dataset's own clip files are linked to: a row's `uri` names what a stranger uploaded, in a
bucket that whoever reads the page may have no business with, and stands as text.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
from collections.abc import Mapping
from typing import Any

from transforms.clip_places import path_of
from transforms.objects import is_object, parts_of

#: What a V4 signature may hold for. IAM's own keys are rotated: its signatures hold for 12 hours at least.
LONGEST = datetime.timedelta(days=7)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TYPES = {"mp4": "video/mp4", "webm": "video/webm"}


class LinkError(ValueError):
    """No links can be made; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Links:
    """Signed links to the clip files of a dataset, all until one moment.

    Attributes:
      signer: credentials that sign (`google.auth.credentials.Signing`).
    """

    dataset_dir: str
    signer: Any
    until: datetime.datetime

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The link to the file of a clip, by its row's `clip_id` and `clip_file`; None where it has none.

        Raises:
          LinkError: nobody signs it.
        """
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage  # type: ignore[attr-defined]

        path = path_of(self.dataset_dir, row)
        if path is None:
            return None
        bucket, name = parts_of(path)
        blob = storage.Client(project="none", credentials=self.signer).bucket(bucket).blob(name)
        try:
            # Its type is said here: an object that somebody put in its place shall not open as a page.
            return str(
                blob.generate_signed_url(
                    version="v4",
                    expiration=self.until,
                    method="GET",
                    response_type=_TYPES[name.rpartition(".")[2]],
                    credentials=self.signer,
                )
            )
        except GoogleAuthError as error:
            told = "it takes the role roles/iam.serviceAccountTokenCreator on the service account that signs"
            raise LinkError(f"no link can be signed ({' '.join(str(error).split())[:300]}); {told}") from error


def links_for(dataset_dir: str, lasting: datetime.timedelta, credentials: Any = None, request: Any = None) -> Links:
    """Make ready to sign links to a dataset's clip files.

    Args:
      credentials: default: the application's own. request: what IAM is asked by; default: over the network.

    Raises:
      LinkError: the dataset is no bucket's, the time is too long, or there are no credentials that can sign.
    """
    if not is_object(dataset_dir):
        raise LinkError(f"{dataset_dir} is not in a bucket: its files need no signed links")
    if not datetime.timedelta(0) < lasting <= LONGEST:
        raise LinkError("links are signed for a time above 0 and up to 7d")
    importlib.import_module("google.cloud.storage")
    import google.auth
    import google.auth.credentials
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials = credentials or google.auth.default(scopes=[_SCOPE])[0]
        signs = isinstance(credentials, google.auth.credentials.Signing)
        signer = credentials if signs else _by_iam(credentials, request)
    except GoogleAuthError as error:
        told = "gcloud auth application-default login --impersonate-service-account=ACCOUNT"
        raise LinkError(f"there are no credentials to sign links with; run: {told}") from error
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Links(dataset_dir, signer, now + lasting)


def _by_iam(credentials: Any, request: Any) -> Any:
    """Credentials of a service account whose key is Google's: IAM signs for them.

    Raises:
      LinkError: they are a person's, who has no signature. GoogleAuthError: they cannot be used.
    """
    from google.auth import credentials as kinds
    from google.auth import iam
    from google.auth.transport.requests import Request

    request = request or Request()
    if not hasattr(credentials, "service_account_email"):
        told = "gcloud auth application-default login --impersonate-service-account=ACCOUNT"
        raise LinkError(f"a person's credentials sign no links, a service account's do; run: {told}")
    credentials.refresh(request)  # Before that it calls itself `default`.
    account = credentials.service_account_email
    if not account:  # An identity of another provider that stands for no service account.
        raise LinkError("these credentials are no service account's, which alone sign links; impersonate one")

    class Signing(kinds.AnonymousCredentials, kinds.Signing):
        """Signs by IAM's signBlob."""

        signer = iam.Signer(request, credentials, account)
        signer_email = account

        def sign_bytes(self, message: bytes) -> bytes:
            return self.signer.sign(message)

    return Signing()
