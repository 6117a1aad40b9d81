"""What is installed comes from where pip is told to look, and as pip is told to."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import ROOT
from tests.operations import package_index
from tests.operations.package_index import PACKAGE, WHEEL


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with an index, `simple`, and its wheel."""
    return package_index.make(tmp_path / "index").parent


def install(folder: Path, configuration: str, *, works: bool = True, **variables: str) -> str:
    """Install the package with a file of pip's configuration; what is said on standard error."""
    file = folder / "pip.conf"
    file.write_text(configuration)
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(("PIP_", "UV_"))}
    env |= {"PIP_CONFIG_FILE": str(file), "UV_CACHE_DIR": str(folder / "cache")}
    env["UV_HTTP_RETRIES"] = "0"
    target = folder / "target"
    command = [sys.executable, "-m", "deployments.installer", "pip", "install"]
    command += ["--target", str(target), PACKAGE]
    done = subprocess.run(
        command, cwd=ROOT, env={**env, **variables}, capture_output=True, text=True
    )
    assert (target / "kreislauf_parcel.py").exists() == works, done.stderr
    assert (done.returncode == 0) == works, done.stderr
    return done.stderr


def test_pips_index_is_used(tmp_path: Path, index: Path):
    with package_index.serve(index) as server:
        install(tmp_path, f"[global]\nindex-url = http://127.0.0.1:{server.server_port}/simple\n")
    assert f"GET /{WHEEL}" in server.requests


def test_pips_variables_go_before_its_files_and_uvs_before_them(tmp_path: Path, index: Path):
    wrong = "[install]\nindex-url = http://127.0.0.1:9/file\n"
    with package_index.serve(index) as server:
        url = f"http://127.0.0.1:{server.server_port}/simple"
        assert "127.0.0.1:9/file" in install(tmp_path, wrong, works=False)
        install(tmp_path, wrong, PIP_INDEX_URL=url)
        shutil.rmtree(tmp_path / "target")
        install(tmp_path, wrong, PIP_INDEX_URL="http://127.0.0.1:9/pip", UV_DEFAULT_INDEX=url)


def test_what_is_not_there_is_left_out_and_named_without_its_password(tmp_path: Path, index: Path):
    configuration = f"""[global]
no-index = false
index-url = file://{tmp_path}/empty
extra-index-url =
    file:///nowhere/simple
    http://ada:secret@127.0.0.1:9/simple
    file://{index}/simple
find-links = /nowhere/wheels
constraint = /nowhere/constraints.txt
"""
    (tmp_path / "empty").mkdir()
    text = install(tmp_path, configuration)
    assert "file:///nowhere/simple of pip's configuration is left out: it does not exist" in text
    assert "http://127.0.0.1:9/simple of pip's configuration is left out: it does not ans" in text
    assert "/nowhere/wheels of pip's configuration is left out" in text
    assert "/nowhere/constraints.txt of pip's configuration is left out" in text
    assert "secret" not in text


def test_pips_folders_of_wheels_are_used_without_an_index(tmp_path: Path, index: Path):
    (tmp_path / "more").mkdir()
    links = f"[global]\nno-index = true\nfind-links = {tmp_path}/more\n    {index}\n"
    install(tmp_path, links)


def test_pips_proxy_is_used(tmp_path: Path, index: Path):
    with package_index.serve(index) as proxy:
        options = f"[global]\nproxy = http://127.0.0.1:{proxy.server_port}\n"
        install(tmp_path, f"{options}index-url = http://packages.example/simple\n")
        install(
            tmp_path / "index", f"{options}index-url = https://packages.example/\n", works=False
        )
    assert f"GET http://packages.example/{WHEEL}" in proxy.requests
    assert "CONNECT packages.example:443" in proxy.requests


def test_pips_certificate_is_used(tmp_path: Path, index: Path):
    certificate = certify(tmp_path)
    with package_index.serve(index, certificate) as server:
        url = f"[global]\nindex-url = https://127.0.0.1:{server.server_port}/simple\n"
        assert "certificate" in install(tmp_path, url, works=False).lower()
        install(tmp_path, f"{url}cert = {certificate}\n")


def certify(folder: Path) -> Path:
    """A file with a key, and a certificate of 127.0.0.1 that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    file.write_bytes(
        key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem)
    )
    return file
