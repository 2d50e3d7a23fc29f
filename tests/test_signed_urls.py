"""Signed links of a report: they are valid by the account's public key, end when they say, and name nothing else."""

import argparse
import base64
import datetime
import hashlib
import html
import json
import pathlib
import re
import urllib.parse

import google.oauth2.credentials
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.auth import compute_engine
from google.oauth2 import service_account
from report_dataset import candidate, clip, video, write_dataset

from beam_pipeline import report, report_links
from beam_pipeline.report import write_report
from beam_pipeline.report_links import LinkError, Links, links_for
from beam_pipeline.usage import link_time

ACCOUNT = "signer@proj-test.iam.gserviceaccount.com"
DATASET = "gs://bucket/data set"
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def credentials(key):
    """A service account whose key is here."""
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    known = {
        "client_email": ACCOUNT,
        "private_key": key.private_bytes(*form).decode(),
        "token_uri": "http://127.0.0.1:9",
    }
    return service_account.Credentials.from_service_account_info(known)


def query_of(url: str) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


def verify(url: str, key: rsa.RSAPrivateKey) -> None:
    """Check a V4 signature as Cloud Storage does; raises `InvalidSignature`. Written after its documentation alone."""
    parts = urllib.parse.urlsplit(url)
    query, _, signature = parts.query.rpartition("&X-Goog-Signature=")
    told = query_of(url)
    request = "\n".join(["GET", parts.path, query, f"host:{parts.netloc}\n", "host", "UNSIGNED-PAYLOAD"])
    scope = told["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = "\n".join(["GOOG4-RSA-SHA256", told["X-Goog-Date"], scope, digest])
    key.public_key().verify(bytes.fromhex(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())


def row(clip_id: str = "a-0-4000", clip_file: str | None = "media/a-0-4000.mp4") -> dict[str, str | None]:
    return {"clip_id": clip_id, "clip_file": clip_file}


def test_a_link_is_signed_by_the_key_for_one_file_for_reading_and_until_its_end(key, credentials):
    links = links_for(DATASET, DAY, credentials)
    url = links.of(row())
    assert url.startswith("https://storage.googleapis.com/bucket/data%20set/media/a-0-4000.mp4?")
    verify(url, key)
    told = query_of(url)
    assert told["X-Goog-Credential"].startswith(f"{ACCOUNT}/")
    assert told["response-content-type"] == "video/mp4"
    signed_at = datetime.datetime.strptime(told["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    ends = signed_at + datetime.timedelta(seconds=int(told["X-Goog-Expires"]))
    assert abs(ends - links.until) <= datetime.timedelta(seconds=2)
    for other in (url.replace("a-0-4000", "b-0-4000"), re.sub("Expires=[0-9]+", "Expires=604800", url)):
        with pytest.raises(InvalidSignature):
            verify(other, key)


@pytest.mark.parametrize(
    "clip_file",
    [None, "", "media/b-0-4000.mp4", "../other/a-0-4000.mp4", "gs://private/secret.mp4", "media/a-0-4000.html"],
)
def test_a_row_that_names_another_file_gets_no_link(credentials, clip_file):
    assert links_for(DATASET, DAY, credentials).of(row(clip_file=clip_file)) is None


class Iam:
    """IAM and the metadata server, as far as keyless credentials ask them: a transport of Google's client."""

    def __init__(self, key: rsa.RSAPrivateKey):
        self._key, self.asked, self.refuse = key, [], False

    def __call__(self, url, method="GET", body=None, headers=None, **rest):
        self.asked.append(url)
        if "iamcredentials" not in url:
            account = {"email": ACCOUNT, "scopes": ["s"], "aliases": ["default"]}
            answer = {"access_token": "token", "expires_in": 3600} if "token" in url else account
        elif self.refuse:
            return Answer(403, {"error": {"message": "Permission iam.serviceAccounts.signBlob denied"}})
        else:
            signed = self._key.sign(base64.b64decode(json.loads(body)["payload"]), padding.PKCS1v15(), hashes.SHA256())
            answer = {"signedBlob": base64.b64encode(signed).decode()}
        return Answer(200, answer)


class Answer:
    def __init__(self, status: int, body: dict):
        self.status, self.data = status, json.dumps(body).encode()
        self.headers = {"content-type": "application/json", "metadata-flavor": "Google"}


def test_a_service_account_without_its_key_has_iam_sign(key):
    iam = Iam(key)
    url = links_for(DATASET, DAY, compute_engine.Credentials(universe_domain="googleapis.com"), iam).of(row())
    verify(url, key)
    assert query_of(url)["X-Goog-Credential"].startswith(f"{ACCOUNT}/")
    assert iam.asked[-1].endswith(f"/serviceAccounts/{ACCOUNT}:signBlob")


def test_a_refusal_of_iam_is_told_with_the_role_that_it_takes(key):
    iam = Iam(key)
    links = links_for(DATASET, DAY, compute_engine.Credentials(universe_domain="googleapis.com"), iam)
    iam.refuse = True
    with pytest.raises(LinkError, match=r"no link can be signed .*signBlob denied.*serviceAccountTokenCreator"):
        links.of(row())


def test_a_persons_credentials_sign_nothing_and_what_does_is_told(key):
    person = google.oauth2.credentials.Credentials("t", "r", "http://token", "id", "secret")
    with pytest.raises(LinkError, match=r"a person's credentials sign no links, .*--impersonate-service-account"):
        links_for(DATASET, DAY, person, Iam(key))


@pytest.mark.parametrize(
    ("dataset", "lasting", "told"),
    [
        ("/data/set", DAY, "/data/set is not in a bucket: its files need no signed links"),
        (DATASET, 8 * DAY, "links are signed for a time above 0 and up to 7d"),
        (DATASET, 0 * DAY, "links are signed for a time above 0 and up to 7d"),
    ],
)
def test_what_needs_no_links_or_cannot_have_them_is_told(credentials, dataset, lasting, told):
    with pytest.raises(LinkError, match=f"^{told}$"):
        links_for(dataset, lasting, credentials)


def test_the_flag_takes_a_time_up_to_seven_days():
    assert (link_time("12h"), link_time("7d")) == (DAY / 2, 7 * DAY)
    for text in ("8d", "0s", "169h"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a time up to 7d"):
            link_time(text)


def hrefs(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'href="(https:[^"]*)"', page)]


def test_a_page_links_to_the_files_that_there_are_says_until_when_and_escapes_names(
    tmp_path, key, credentials, monkeypatch
):
    """Over a dataset here, which is shown as that of a bucket with a hostile name."""
    folder = write_dataset(
        tmp_path / "d",
        videos=[video("a", 20.0)],
        clips=[
            clip("a", 0.0, 4.0, [candidate("t", "one", 0.5)], clip_file="media/a-0-4000.mp4"),
            clip("a", 4.0, 8.0, [candidate("t", "two", 0.5)], clip_file="gs://private/secret.mp4"),
            clip("a", 8.0, 9.0, [candidate("t", "three", 0.5)]),
        ],
    )
    until = datetime.datetime.now(datetime.UTC) + DAY
    links = Links('gs://bucket/"><script>alert(1)</script>', credentials, until)
    monkeypatch.setattr(report, "links_for", lambda dataset_dir, lasting: links)
    page = pathlib.Path(write_report(str(folder), sign_urls=DAY)).read_text()
    (url,) = hrefs(page)
    verify(url, key)
    assert urllib.parse.unquote(urllib.parse.urlsplit(url).path) == (
        '/bucket/"><script>alert(1)</script>/media/a-0-4000.mp4'
    )
    assert page.count("</script") == 1
    assert f"The links to clip files work until {until:%Y-%m-%d %H:%M} UTC, for everybody who has this page." in page
    without = pathlib.Path(write_report(str(folder))).read_text()
    assert (hrefs(without), "The links to clip files" in without) == ([], False)


def test_a_signature_holds_no_longer_than_v4_allows():
    assert report_links.LONGEST.total_seconds() == 604_800
