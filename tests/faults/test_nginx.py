"""The example of a proxy, as it is in deploy/nginx.conf, in front of a served site: TLS, compression, uploads."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PASSWORD
from post_office import self_signed
from serving import PROJECT, Client, Site, free_port, until

from .mariadb import SYSTEM_PLACES, account

pytestmark = pytest.mark.faults

NGINX = shutil.which("nginx", path=SYSTEM_PLACES)
PROXIED = {"SITE_URL": "https://127.0.0.1", "TRUSTED_PROXY": "127.0.0.1", "TRUSTED_HOSTS": "127.0.0.1"}


class SecureClient(Client):
    def __init__(self, port: int, certificate: str) -> None:
        super().__init__(port)
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", port, context=ssl.create_default_context(cafile=certificate), timeout=30
        )

    def _ask(self, method, path, body=b"", headers=None):
        return super()._ask(method, path, body, {"Referer": "https://127.0.0.1/", **(headers or {})})


def configuration(folder: Path, site: Site, plain: int, secure: int) -> str:
    """The example, with the places and ports of the test."""
    text = (PROJECT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for written, ours in (
        ("intranet.example.com", "127.0.0.1"), ("127.0.0.1:8000", f"127.0.0.1:{site.port}"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"), ("listen 443 ", f"listen 127.0.0.1:{secure} "),
        ("    listen [::]:80;\n", ""), ("    listen [::]:443 ssl http2;\n", ""),
        ("/etc/ssl/corkboard/fullchain.pem", f"{folder}/ca.pem"),
        ("/etc/ssl/corkboard/privkey.pem", f"{folder}/key.pem"), ("/var/log/nginx", str(folder)),
    ):  # fmt: skip
        assert written in text, written
        text = text.replace(written, ours)
    kept = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {account()};\n" if os.geteuid() == 0 else ""
    head = f"daemon off;\n{user}pid {folder}/pid;\nerror_log {folder}/errors.txt;\nevents {{}}\n"
    return f"{head}http {{\ninclude /etc/nginx/mime.types;\naccess_log off;\n{kept}\n{text}\n}}\n"


@pytest.fixture
def proxied(sqlite_site: Site, tmp_path: Path) -> Iterator[tuple[SecureClient, int]]:
    """A browser that reaches a site through nginx, and the port at which nginx takes plain HTTP."""
    if NGINX is None:
        pytest.skip("no nginx here (Debian: apt-get install nginx)")
    sqlite_site.stop()
    sqlite_site.environ |= PROXIED
    sqlite_site.start()
    plain, secure = free_port(), free_port()
    _, certificate = self_signed(tmp_path)
    (tmp_path / "nginx.conf").write_text(configuration(tmp_path, sqlite_site, plain, secure), encoding="utf-8")
    client = SecureClient(secure, certificate)
    with subprocess.Popen(
        [NGINX, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "errors.txt"]
    ) as nginx:
        try:
            until(lambda: answers(client) or nginx.poll() is not None, "nginx does not answer")
            yield client, plain
        finally:
            client.close()
            nginx.terminate()


def answers(client: Client) -> bool:
    try:
        return client.get("/healthz").status == 200
    except OSError:
        return False


def test_nginx_serves_the_site_as_its_example_says(proxied: tuple[SecureClient, int], sqlite_site: Site) -> None:
    browser, plain = proxied
    with contextlib.closing(Client(plain)) as stranger:
        away = stranger.get("/people?q=x")
    assert (away.status, away.headers["Location"]) == (301, "https://127.0.0.1/people?q=x")
    browser.connection.request("GET", "/bootstrap/static/css/bootstrap.min.css", headers={"Accept-Encoding": "gzip"})
    style = browser.connection.getresponse()
    sent = style.read()
    assert style.headers["Content-Encoding"] == "gzip"
    assert len(sent) < len(gzip.decompress(sent)) / 4
    assert "Content-Encoding" not in browser._ask("GET", "/login", headers={"Accept-Encoding": "gzip"}).headers
    browser.sign_in("ada", PASSWORD)
    assert browser.cookie.startswith("__Host-corkboard")
    kind = {"Content-Type": "multipart/form-data; boundary=x", "X-CSRFToken": browser.csrf_token}
    for megabytes, status in ((20, 200), (30, 413), (60, 413)):
        body = b'--x\r\nContent-Disposition: form-data; name="upload"; filename="a.zip"\r\n\r\n'
        body += bytes(megabytes * 1_000_000) + b"\r\n--x--\r\n"
        answer = browser._ask("POST", "/files", body, kind)
        assert answer.status == status, answer.text[:500]
        assert ("nginx" in answer.text) is (megabytes == 60), "up to twice the limit, the site itself refuses"
    claimed = browser._ask("GET", "/account/sessions", headers={"X-Forwarded-For": "203.0.113.7"})
    assert "127.0.0.1" in claimed.text
    assert "203.0.113.7" not in claimed.text
