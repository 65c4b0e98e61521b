"""
A certificate authority for the time of a test, created by the system's openssl. Not here: a TLS connection.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCAL = ("DNS:localhost", "IP:127.0.0.1")

# Explicit, because the defaults differ between systems and Python 3.13 refuses certificates without key identifiers.
_CONFIGURATION = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = ${ENV::NAMES}
[ca]
default_ca = books
[books]
certificate = authority.pem
private_key = authority.key
database = issued.txt
unique_subject = no
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class TlsFiles:
    """
    The files of one end of a TLS connection: the authority it trusts, its own certificate, its key (all PEM).
    """

    ca: Path
    certificate: Path
    key: Path


class CertificateAuthority:
    """
    Issues certificates that are valid for servers and for clients.
    """

    def __init__(self, folder: Path) -> None:
        """
        Create the authority's own certificate; all files are kept in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        (folder / "openssl.cnf").write_text(_CONFIGURATION, encoding="ascii")
        (folder / "issued.txt").touch()
        self._request("authority", "authority.pem", "-x509", "-extensions", "authority", "-days", "2")

    def issue(self, name: str, *, names: tuple[str, ...] = LOCAL, expired: bool = False) -> TlsFiles:
        """
        Create a key and a certificate with the given common name, for these host names.
        """
        self._request(name, f"{name}.csr", "-new")
        # The only command that accepts dates of the past in every version of openssl.
        command = ["openssl", "ca", "-batch", "-notext", "-config", "openssl.cnf", "-extensions", "leaf"]
        command += ["-in", f"{name}.csr", "-out", f"{name}.pem"]
        command += ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"] if expired else ["-days", "2"]
        self._run(command, names)
        return TlsFiles(
            ca=self._folder / "authority.pem",
            certificate=self._folder / f"{name}.pem",
            key=self._folder / f"{name}.key",
        )

    def _request(self, name: str, output: str, *arguments: str) -> None:
        command = ["openssl", "req", "-config", "openssl.cnf", "-newkey", "ec"]
        command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
        self._run([*command, "-keyout", f"{name}.key", "-out", output, *arguments])

    def _run(self, command: list[str], names: tuple[str, ...] = LOCAL) -> None:
        environment = {"PATH": os.environ["PATH"], "NAMES": ",".join(names)}
        subprocess.run(command, cwd=self._folder, env=environment, check=True, capture_output=True)
