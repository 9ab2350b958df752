"""Requests that are no requests, over raw sockets: each is refused or dropped, none harms the process."""

from __future__ import annotations

import re
import socket

import pytest
from serving import Client, Site
from test_wsgi import UNCLEAR

# ruff: noqa: E501 (a case a line would be longer than the rest of the file)
pytestmark = pytest.mark.faults

HOST = b"Host: 127.0.0.1\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
LINES = [  # in the place of the first line
    b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 x", b"GET / HTTP/9.9", b"GET / HTTP/0.9", b"GET / HTTP/1.",
    b"GET / HTTP/1.1.1", b"GET / http/1.1", b"GET / FTP/1.1", b"get / HTTP/1.1", b"G\x00T / HTTP/1.1", b"GET /\x00 HTTP/1.1",
    b"GET /%00 HTTP/1.1", b"GET /%ff%fe HTTP/1.1", b"GET /\xff\xfe HTTP/1.1", b"GET /%zz HTTP/1.1", b"GET * HTTP/1.1",
    b"GET http://127.0.0.1:99999/ HTTP/1.1", b"GET http://[::1/ HTTP/1.1", b"GET //127.0.0.1/ HTTP/1.1", b"GET ? HTTP/1.1",
    b"GET /../../etc/passwd HTTP/1.1", b"GET /%2e%2e/%2e%2e/x HTTP/1.1", b"CONNECT 127.0.0.1:80 HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0", b"GET /" + b"a" * 40_000 + b" HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\xff" * 300, b"GET /?" + b"a=1&" * 5000 + b" HTTP/1.1",
]  # fmt: skip
HEADERS = [  # after a first line, each a header or what is none
    b"no colon", b": no name", b" leading: space", b"X\x00: y", b"X: \x00", b"X: \r y", b"X\xff: y", b"Cookie: " + b"a" * 20_000,
    b"Content-Length: 99999999999999999999", b"Content-Length: 1e3", b"Content-Length: ", b"Range: bytes=-1-9,x",
    b"Accept-Encoding: " + b",;q=" * 2000, b"If-Modified-Since: never", b"Content-Type: multipart/form-data",
    b"Authorization: Bearer \xff\xfe", b"Authorization: Basic !!!", b"Forwarded: for=\x22_", b"Upgrade: h2c", b"Expect: 200-ok",
]  # fmt: skip
BODIES = [  # after POST /login
    CHUNKED + b"zz\r\n", CHUNKED + b"-1\r\nx\r\n", CHUNKED + b"ffffffffffffffff\r\nx", CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    CHUNKED + b"\r\n\r\n", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    HOST + b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\n\xff{[",
    HOST + b"Content-Type: multipart/form-data; boundary=\r\nContent-Length: 4\r\n\r\n----",
    HOST + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n%&%=\xff\x00&=",
    HOST + b"Content-Length: 50\r\n\r\nshort",
]  # fmt: skip
CASES = [
    *(line + b"\r\n" + HOST + b"\r\n" for line in LINES),
    *(b"GET /login HTTP/1.1\r\n" + HOST + header + b"\r\n\r\n" for header in HEADERS),
    *(b"POST /login HTTP/1.1\r\n" + body for body in BODIES),
    *(b"POST /login HTTP/1.1\r\n" + headers + b"\r\nhello" for headers in UNCLEAR.values()),
]


def said_to(port: int, sent: bytes) -> bytes:
    """What comes back until the site closes, or has nothing more to say."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.settimeout(1.5)
        answer = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
        except OSError:  # it need not read all of it
            pass
    return answer


def test_what_is_no_request_is_refused_and_harms_nothing(sqlite_site: Site) -> None:
    assert len(CASES) >= 70
    failed = {}
    for case in CASES:
        answer = said_to(sqlite_site.port, case)
        if answer and not re.match(rb"HTTP/1\.[01] ([234]\d\d|501|505) ", answer):
            failed[case[:80]] = answer[:80]
    assert failed == {}
    client = Client(sqlite_site.port)
    assert client.get("/login").status == 200
    client.close()
    assert sqlite_site.process is not None
    assert sqlite_site.process.poll() is None
    assert "Traceback" not in sqlite_site.output()
