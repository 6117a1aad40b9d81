"""uv, with pip's configuration: it gets the arguments of `python -m deployments.installer`.

uv reads neither pip's files nor its variables. Index, mirror, proxy, certificate, wheel folders and
constraints of pip are handed to it here, under uv's names. A variable that uv reads itself goes
before. Pip itself says what it is told.
"""

import ast
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from deployments.interpreter import ROOT

VARIABLES = {
    "index-url": ["UV_DEFAULT_INDEX"],
    "extra-index-url": ["UV_INDEX"],
    "find-links": ["UV_FIND_LINKS"],
    "constraint": ["UV_CONSTRAINT"],
    "trusted-host": ["UV_INSECURE_HOST"],
    "timeout": ["UV_HTTP_TIMEOUT"],
    "cert": ["SSL_CERT_FILE"],
    "client-cert": ["SSL_CLIENT_CERT"],
    "proxy": ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"],
}
"""Variables of uv by the option of pip whose value they take."""
LISTS = ("extra-index-url", "find-links", "constraint")
"""Options with several places, each of which may be gone: pip goes on without it."""
PATIENCE = 10
"""Seconds within which an index has to answer."""


def uv(arguments: Iterable[str | Path], options: dict[str, str]) -> int:
    """Run uv in the checkout, with options of pip; returns the code of its exit."""
    flags = ["--no-index"] if options.get("no-index", "").lower() in ("1", "true", "yes") else []
    program = Path(sys.executable).parent / "uv"
    return subprocess.call([program, *arguments, *flags], cwd=ROOT, env=environment(options))


def pip_options() -> dict[str, str]:
    """Pip's options for an installation: files first, then a file's part on `install`, then
    variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    options = {}
    for section in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            # pip, too, passes over what is empty.
            if key.startswith(section) and ast.literal_eval(value):
                name = key.removeprefix(section).removeprefix("default-")
                options[name] = ast.literal_eval(value)
    return options


def environment(options: dict[str, str]) -> dict[str, str]:
    """The variables of this process, with pip's options under uv's names."""
    # pip takes the best version of all indexes; uv by itself that of the first one.
    variables = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for option, names in VARIABLES.items():
        value = options.get(option, "")
        if option in LISTS:
            places = [place for place in value.split() if is_there(place, options)]
            value = ("," if option == "find-links" else " ").join(places)
        if value:
            variables |= dict.fromkeys(names, value)
    own = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    return {**os.environ, **variables, **own}


def is_there(place: str, options: dict[str, str]) -> bool:
    """Whether a folder or file exists, or an index answers; says so if not."""
    address = urlsplit(place)
    if address.scheme not in ("http", "https"):
        path = Path(address.path if address.scheme == "file" else place).expanduser()
        reason = "" if path.exists() else "it does not exist"
    else:
        reason = silence(place, options)
    if reason:
        shown = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        print(f"{shown} of pip's configuration is left out: {reason}.", file=sys.stderr)
    return not reason


def silence(url: str, options: dict[str, str]) -> str:
    """Why an index does not answer; empty if it does, be it with an error."""
    proxy = options.get("proxy")
    proxies = {"http": proxy, "https": proxy} if proxy else None
    # The certificate is for uv to look at: nothing secret is sent here, and nothing taken.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )
    # urllib takes no name and password in the address; what answers with 401 is there.
    address = urlsplit(url)
    address = address._replace(netloc=address.netloc.rpartition("@")[2])
    request = urllib.request.Request(address.geturl(), method="HEAD")
    try:
        opener.open(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return f"it does not answer ({getattr(error, 'reason', error)})"
    return ""


if __name__ == "__main__":
    sys.exit(uv(sys.argv[1:], pip_options()))
