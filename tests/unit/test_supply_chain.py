"""The claims of SECURITY.md about the dependencies."""

import subprocess
import sys

from jose import backends
from jose.backends.cryptography_backend import CryptographyECKey, CryptographyRSAKey

from settings import ROOT


def test_the_cryptography_backend_verifies() -> None:
    assert backends.ECKey is CryptographyECKey
    assert backends.RSAKey is CryptographyRSAKey


def test_ecdsa_is_not_imported_by_the_program() -> None:
    """CVE-2024-23342 affects ecdsa, which python-jose installs for its other backend."""
    statement = "import main, sys; print(sorted({'ecdsa', 'rsa', 'pyasn1'} & sys.modules.keys()))"

    run = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert run.stdout == "[]\n"
