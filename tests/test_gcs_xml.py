"""The XML API that the tests' Cloud Storage speaks: ranges, pages, multipart uploads."""

import os
import re

import pytest
from gcs_xml import Page, Told, after_token, page_of, parts_named, range_of, token_of


def test_ranges_and_conditions_of_reads_are_those_of_the_xml_api(gcs):
    generation = gcs.put("a", b"0123456789")
    status, headers, body = gcs.xml("GET", "a", Range="bytes=2-4")
    assert (status, headers["Content-Range"], body) == (206, "bytes 2-4/10", b"234")
    assert headers["ETag"] == '"781e5e245d69b566979b86e28d23f2c7"' and headers["Last-Modified"].endswith(" GMT")
    status, headers, body = gcs.xml("HEAD", "a")
    assert (status, headers["Content-Length"], headers["x-goog-generation"], body) == (200, "10", generation, b"")
    assert gcs.xml("GET", "a", If_Match='"other"')[0] == 412
    assert gcs.xml("GET", "a", If_None_Match=headers["ETag"])[0] == 304
    assert gcs.xml("GET", "a?generation=1")[0] == 404


def test_a_multipart_upload_is_there_when_it_is_completed_and_gone_when_it_is_aborted(gcs):
    def begin() -> str:
        return re.findall(rb"<UploadId>(.*)</UploadId>", gcs.xml("POST", "big?uploads")[2])[0].decode()

    def complete(upload: str, *etags: str) -> int:
        parts = (f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(etags, start=1))
        body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        return gcs.xml("POST", f"big?uploadId={upload}", body)[0]

    upload, content = begin(), [os.urandom(5 * 2**20), b"the rest"]
    tags = [
        gcs.xml("PUT", f"big?partNumber={n}&uploadId={upload}", part)[1]["ETag"]
        for n, part in enumerate(content, start=1)
    ]
    assert gcs.names() == []
    assert complete(upload, tags[0], '"no such part"') == 400
    assert complete(upload, *tags) == 200
    assert gcs.xml("GET", "big")[2] == b"".join(content)
    aborted = begin()
    assert gcs.xml("DELETE", f"big?uploadId={aborted}")[0] == 204
    assert complete(aborted, tags[0]) == 404


@pytest.mark.parametrize(
    ("delimiter", "after", "limit", "page"),
    [
        ("", "", 9, Page(("a/", "a/1", "a/b/2", "a/b/3", "a/c/4"), (), None)),
        ("", "a/1", 2, Page(("a/b/2", "a/b/3"), (), "a/b/3")),
        ("", "a/b/3", 1, Page(("a/c/4",), (), None)),
        ("/", "", 9, Page(("a/", "a/1"), ("a/b/", "a/c/"), None)),
        ("/", "", 3, Page(("a/", "a/1"), ("a/b/",), "a/b/")),
        ("/", "a/b/", 3, Page((), ("a/c/",), None)),
        ("/", "a/", 1, Page(("a/1",), (), "a/1")),
    ],
)
def test_a_page_goes_on_behind_what_was_listed_last(delimiter, after, limit, page):
    names = {"a/b/3", "a/1", "z", "a/c/4", "a/", "a/b/2", "A"}
    assert page_of(names, "a/", delimiter, after, limit) == page
    assert after_token(token_of(after) or "") == after


@pytest.mark.parametrize(
    ("header", "cut"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=10-", "416"),
        ("bytes=1-2,4-5", None),
    ],
)
def test_a_range_is_what_is_there_of_it(header, cut):
    if cut == "416":
        with pytest.raises(Told, match="of an object of 10 bytes"):
            range_of(header, 10)
    else:
        assert range_of(header, 10) == cut


def test_a_list_of_parts_that_is_no_xml_is_a_bad_request():
    with pytest.raises(Told, match=r"^MalformedXML: ") as caught:
        parts_named(b"{}")
    assert caught.value.status == 400
