"""The setup of docker-compose.yml: secrets, then a replica set with TLS and passwords, and a database user for Horae.

Both steps can be repeated at any time; they keep what exists. Each secret is readable only by the user that needs it.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MONGOD, HORAE, SETUP, GRAFANA = 999, 10_001, 10_002, 472
"""User ids in the containers: of MongoDB's image, of Horae's image, of the latter while it sets up the replica set, and
of Grafana's image.
"""

SET = "rs0"
YEARS = 10
REACH_SECONDS = 120.0


def make_secrets(directory: Path, members: Sequence[str], db_name: str) -> list[str]:
    """Write the missing files and return their names. `members` are `host:port`, as clients reach them.

    Files: ca.pem and mongo.pem (certificate and key of every member), mongo-key (authenticates members to each other),
    root-password, horae-password; for the nodes: mongodb-uri, secret-key, api-keys; grafana-password.
    """
    directory.mkdir(parents=True, exist_ok=True)
    created: list[str] = []

    def keep(name: str, content: str, owner: int | None) -> None:
        path = directory / name
        if path.exists():
            return
        new = directory / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(content)
        if owner is None:
            new.chmod(0o444)
        elif os.geteuid() == 0:
            os.chown(new, owner, owner)
        if owner is not None:
            new.chmod(0o400)
        new.replace(path)
        created.append(name)

    if not (directory / "ca.pem").exists() or not (directory / "mongo.pem").exists():
        authority, member = certificates([m.rpartition(":")[0] for m in members])
        (directory / "ca.pem").unlink(missing_ok=True)
        (directory / "mongo.pem").unlink(missing_ok=True)
        keep("mongo.pem", member, MONGOD)
        keep("ca.pem", authority, None)
    keep("mongo-key", base64.b64encode(os.urandom(512)).decode(), MONGOD)
    keep("root-password", secrets.token_hex(24), SETUP)
    keep("horae-password", secrets.token_hex(24), SETUP)
    password = quote((directory / "horae-password").read_text().strip(), safe="")
    keep("mongodb-uri", _uri(members, directory, f"horae:{password}@", db_name), HORAE)
    keep("secret-key", base64.b64encode(os.urandom(32)).decode(), HORAE)
    keep("grafana-password", secrets.token_hex(24), GRAFANA)
    keep("api-keys", f"admin:{secrets.token_hex(24)}:admin", HORAE)
    return created


def _uri(members: Sequence[str], directory: Path, credentials: str, source: str) -> str:
    options = f"replicaSet={SET}&authSource={source}&tls=true&tlsCAFile={quote(str(directory / 'ca.pem'), safe='/')}"
    return f"mongodb://{credentials}{','.join(members)}/?{options}"


def certificates(names: Sequence[str]) -> tuple[str, str]:
    """The PEM of a new authority's certificate, and of a member's certificate with its key, for these hosts and loopback.

    The key of the authority is discarded after it has signed this certificate.
    """
    now = datetime.now(UTC) - timedelta(hours=1)
    authority_key, member_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Horae's own authority")])

    def begin(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=365 * YEARS))
        )

    authority = (
        begin(issuer, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    member = (
        begin(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mongod")]), member_key)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(n) for n in {*names, "localhost", "127.0.0.1"}]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = member_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority.public_bytes(pem).decode(), member.public_bytes(pem).decode() + private.decode()


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_replica_set(directory: Path, members: Sequence[str], db_name: str, port: int) -> None:
    """Initiate the replica set through the member on this machine's `port`, then create `root` and the user of Horae.

    MongoDB allows this without a password from its own machine only, and only until the first user exists. Raises
    `click.ClickException` if it does not succeed within `REACH_SECONDS`.
    """
    deadline = time.monotonic() + REACH_SECONDS
    while True:
        try:
            if _once(directory, members, db_name, port):
                return
            why = "no primary yet"
        except PyMongoError as exc:
            why = str(exc)[:300]
        if time.monotonic() > deadline:
            raise click.ClickException(f"the replica set could not be created within {REACH_SECONDS:.0f} s: {why}")
        time.sleep(0.2)


def _once(directory: Path, members: Sequence[str], db_name: str, port: int) -> bool:
    """Make one attempt; False if it must be repeated."""
    root = (directory / "root-password").read_text().strip()
    user: dict[str, Any] = {
        "pwd": (directory / "horae-password").read_text().strip(),
        "roles": [{"role": "readWrite", "db": db_name}],
    }
    tls: dict[str, Any] = {"tls": True, "tlsCAFile": str(directory / "ca.pem"), "serverSelectionTimeoutMS": 2000}
    with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True, **tls) as client:
        hello = client.admin.command("hello")
        if "setName" not in hello:
            # The first member should become the first primary: the first user can be created only there.
            listed = [{"_id": i, "host": m, "priority": 2 if i == 0 else 1} for i, m in enumerate(members)]
            client.admin.command("replSetInitiate", {"_id": SET, "members": listed})
            return False
        if hello.get("isWritablePrimary"):
            try:
                client.admin.command("createUser", "root", pwd=root, roles=["root"])
            except OperationFailure as exc:
                if exc.code not in (13, 51003):  # root exists already, so requests without a password are refused
                    raise
    with MongoClient[dict[str, Any]](_uri(members, directory, f"root:{root}@", "admin"), **tls) as client:
        try:
            client[db_name].command("createUser", "horae", **user)
        except OperationFailure as exc:
            if exc.code == 18:  # root does not exist yet, or not on this member
                return False
            if exc.code != 51003:
                raise
            client[db_name].command("updateUser", "horae", **user)
    return True
