"""A mail server for the tests: a real one, on the loopback interface, that can fail, die and come back."""

from __future__ import annotations

import ssl
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from serving import free_port


class PostOffice:
    """Keeps what it takes in `messages`. It refuses each `fails_every`th email for now, and some addresses for good."""

    def __init__(self, **options: Any) -> None:
        self.port, self.options = free_port(), options
        self.messages: list[EmailMessage] = []
        self.seen = self.fails_every = 0
        self.unknown: set[str] = set()
        self.controller: Controller | None = None

    def start(self) -> None:
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **self.options)
        self.controller.start()

    def stop(self) -> None:
        if self.controller is not None:
            self.controller.stop()
            self.controller = None

    def __enter__(self) -> PostOffice:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def settings(self) -> dict[str, Any]:
        """What a site says to send through it."""
        return {
            "MAIL_SERVER": "127.0.0.1", "MAIL_PORT": self.port, "MAIL_USE_TLS": False, "MAIL_CA_FILE": "",
            "MAIL_USERNAME": "", "MAIL_PASSWORD": "", "MAIL_FROM": "Our board <board@example.com>",
            "SITE_URL": "https://board.example.com",
        }  # fmt: skip

    def to(self, username: str) -> list[EmailMessage]:
        return [message for message in self.messages if f"{username}@example.com" in message["To"]]

    def subjects(self, username: str) -> list[str]:
        return [message["Subject"] for message in self.to(username)]

    # -- what aiosmtpd calls

    async def handle_MAIL(self, _server: Any, session: Any, envelope: Any, address: str, _options: Any) -> str:
        if "authenticator" in self.options and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address in self.unknown:
            return "550 5.1.1 No such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.seen += 1
        if self.fails_every and self.seen % self.fails_every == 0:
            return "451 4.3.0 Too much to do just now"
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 2.0.0 Taken"


def only_with(username: str, password: str) -> dict[str, Any]:
    """Options of a server that asks for a password."""

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        fits = (given.login, given.password) == (username.encode(), password.encode())
        return AuthResult(success=fits, handled=False)

    return {"authenticator": check, "auth_require_tls": False}


def self_signed(folder: Any) -> tuple[ssl.SSLContext, str]:
    """The TLS of a server that is its own authority, and the file of its certificate."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = made.add_extension(here, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    (folder / "ca.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context, str(folder / "ca.pem")
