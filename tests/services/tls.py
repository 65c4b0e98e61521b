"""
A certificate authority that lasts for a test, made by the system's openssl.

Not here: a TLS connection.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

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
subjectAltName = DNS:localhost, IP:127.0.0.1
"""


@dataclass(frozen=True)
class TlsFiles:
    """
    What one end of a TLS connection needs: the authority it trusts, its own certificate, its key (all PEM).
    """

    ca: Path
    certificate: Path
    key: Path


class CertificateAuthority:
    """
    Issues certificates for ``localhost`` and 127.0.0.1, good for servers and for clients.
    """

    def __init__(self, folder: Path) -> None:
        """
        Make the authority's own certificate; all files are kept in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        (folder / "openssl.cnf").write_text(_CONFIGURATION, encoding="ascii")
        self._request("authority", "authority")

    def issue(self, name: str) -> TlsFiles:
        """
        Make a key and a certificate whose common name is the given one.
        """
        self._request(name, "leaf", "-CA", "authority.pem", "-CAkey", "authority.key")
        return TlsFiles(
            ca=self._folder / "authority.pem",
            certificate=self._folder / f"{name}.pem",
            key=self._folder / f"{name}.key",
        )

    def _request(self, name: str, extensions: str, *arguments: str) -> None:
        command = ["openssl", "req", "-x509", "-config", "openssl.cnf", "-extensions", extensions, "-days", "2"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
