"""An embedded Apache Kafka with TLS, logins and ACLs: SASL_SSL beside a plain listener for super users."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streams import broker as embedded
from streams.acls import Acl
from streams.broker import node
from streams.settings import Settings

USER, PASSWORD = "quantum", "open-sesame"
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str) -> Authority:
        """A self-signed one."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key, name, key, authority=True))

    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server(self) -> str:
        """Key and certificate of a server on loopback, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        signed = _certificate("127.0.0.1", key, str(issuer), self.key, authority=False)
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption()).decode() + \
            signed.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *,
                 authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject, signed_by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, issuer))
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(signed_by).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True))
    if not authority:
        made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), False)
    return made.sign(signer, hashes.SHA256())


class SecuredBroker:
    """The broker, its certificates, and who may do what.

    Attributes:
        admin: settings of the plain listener; whoever comes there may do everything.
        user: settings of the secured one, with the right password and certificate, and no rights to begin with.
        other_ca: certificate of an authority that has not signed the broker's.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        ours = Authority.new("the test's authority")
        (folder / "server.pem").write_text(ours.server())
        (folder / "ca.pem").write_text(ours.pem())
        self.other_ca = folder / "other.pem"
        self.other_ca.write_text(Authority.new("another authority").pem())
        secured = node.free_port()
        written = node.server_properties

        def properties(layout: node.Layout, port: int, controller_port: int) -> str:
            return written(layout, port, controller_port) + "".join(
                f"{k}={v}\n" for k, v in _overlay(port, controller_port, secured, folder / "server.pem").items())

        settings = Settings(data_dir=folder)
        with mock.patch.object(node, "server_properties", properties):
            running = embedded.up(settings, ephemeral_dir=folder)
        self.admin = settings.replace(broker=running.address)
        self.user = settings.replace(
            broker=f"127.0.0.1:{secured}", security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username=USER,
            sasl_password=PASSWORD, ssl_ca_location=folder / "ca.pem")

    def stop(self) -> None:
        """Stop it."""
        embedded.down(self.admin, ephemeral_dir=self._folder)

    def allow(self, acls: Iterable[Acl], user: str = USER) -> None:
        """Give rights."""
        client = AdminClient(dict(self.admin.client()))
        for future in client.create_acls([_binding(a, user) for a in acls]).values():
            future.result()

    def forbid(self, acls: Iterable[Acl], user: str = USER) -> None:
        """Take rights away."""
        client = AdminClient(dict(self.admin.client()))
        for future in client.delete_acls([_filter(a, user) for a in acls]).values():
            assert future.result(), "there was no such right"

    def forbid_all(self) -> None:
        """Take every right away."""
        client = AdminClient(dict(self.admin.client()))
        everything = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY,
                                      AclPermissionType.ANY)
        for future in client.delete_acls([everything]).values():
            future.result()


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make these settings."""
    values: Mapping[str, object] = {
        "broker": settings.broker, "topic_prefix": settings.topic_prefix, "app_id": settings.app_id,
        "data_dir": settings.data_dir, "security_protocol": settings.security_protocol,
        "sasl_mechanism": settings.sasl_mechanism, "sasl_username": settings.sasl_username,
        "sasl_password": settings.sasl_password and settings.sasl_password.get_secret_value(),
        "ssl_ca_location": settings.ssl_ca_location}
    return {f"QUANTUM_{name.upper()}": str(value) for name, value in values.items() if value}


def _overlay(port: int, controller_port: int, secured: int, pem: Path) -> dict[str, str]:
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secured},"
                     f"CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secured}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config":
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_{USER}="{PASSWORD}" user_nobody="{PASSWORD}";',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pem),
    }


def _binding(acl: Acl, user: str) -> AclBinding:
    return AclBinding(ResourceType[acl.resource.upper()], acl.name, ResourcePatternType[acl.pattern.upper()],
                      f"User:{user}", "*", AclOperation[_operation(acl)], AclPermissionType.ALLOW)


def _filter(acl: Acl, user: str) -> AclBindingFilter:
    return AclBindingFilter(ResourceType[acl.resource.upper()], acl.name, ResourcePatternType[acl.pattern.upper()],
                            f"User:{user}", "*", AclOperation[_operation(acl)], AclPermissionType.ALLOW)


def _operation(acl: Acl) -> str:
    return {"Read": "READ", "Write": "WRITE", "Describe": "DESCRIBE"}[acl.operation]
