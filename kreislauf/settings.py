"""Locations, from environment variables. The only module that reads the environment.

Whoever imports it asks this machine's own servers without a proxy, and so do its children.
"""

import json
import os
import socket
import sys
import tomllib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from kreislauf import plain_names

PREFIX = "KREISLAUF_"
RUN = "run.json"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NO_PROXY = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
"""Variables with hosts that are asked without a proxy; some clients read one, some another."""


def exempt_loopback_from_proxies() -> None:
    """Add this machine to the hosts that are asked without a proxy.

    A proxy in the environment is meant for hosts outside. It would be asked for the stack's own
    servers, too, and knows none of them.
    """
    listed = [host.strip() for name in NO_PROXY for host in os.environ.get(name, "").split(",")]
    hosts = ",".join(dict.fromkeys([*filter(None, listed), *LOOPBACK]))
    for name in NO_PROXY:
        os.environ[name] = hosts


exempt_loopback_from_proxies()


class WrongSetting(ValueError):
    """A variable has a value that it cannot have; the message names it."""


class Settings(BaseSettings):
    """Every field is an environment variable `KREISLAUF_<FIELD>`; unset ones live under `home`, on
    embedded defaults.

    Credentials and the endpoint of an S3 server are the usual AWS variables (`AWS_ENDPOINT_URL`,
    `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`), which every library underneath
    understands.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    home: Path = Path(".kreislauf")
    """Folder of everything that the embedded defaults keep."""
    lake: str = ""
    """Folder or s3:// prefix of the Delta tables."""
    releases: str = ""
    """Folder or s3:// prefix of the release logs."""
    training: str = ""
    """Folder of unfinished trainings, from which killed ones are continued; a volume, if runs
    change machines."""
    trainer: dict[str, Any] = {}
    """JSON object of `lightning.Trainer` arguments that say where a training runs, such as
    `{"accelerator": "gpu", "devices": 4, "strategy": "ddp_spawn", "precision": "bf16-mixed"}`."""
    triton_repository: str = ""
    """Folder or s3:// prefix of Triton's model repository, as this process sees it."""
    triton_url: str = ""
    """host:port of Triton's gRPC endpoint; default: the one that `make up` recorded."""
    triton_gpu: bool = False
    """Whether Triton answers on its GPUs, with one instance each; it needs its native onnxruntime
    backend then."""
    kafka: str = ""
    """Bootstrap servers of Kafka, host:port, separated by commas."""
    kafka_options: dict[str, str | bool | int | float] = {}
    """JSON object of further librdkafka properties, such as TLS and SASL ones."""
    spool: str = ""
    """Folder into which the gateway writes exposures and feedback until they are loaded."""
    gateway_token: str = ""
    """Token that requests to the gateway bring as `Authorization: Bearer ...`; without it, only
    loopback is served."""
    gateway_secret: SecretStr = SecretStr("")
    """Secret that signs request ids and makes the pseudonyms of users; default: a file under
    `home`. Gateways that share a service, and their workers, need the same."""
    history_days: int = Field(400, ge=30)
    """Days for which the windows, slices and alarms of the monitor are kept, at least a month. What
    calibrates a version, and what was decided, stays."""
    report_days: int = Field(90, ge=1)
    """Days for which Evidently's pages are kept: the newest of each day, and of its alarms."""
    mapping: str = ""
    """YAML file that says what a shop's requests and feedback are called; for the gateway."""
    hold_back: float = Field(0.0, ge=0, le=0.5)
    """Share of the users, 0 to 0.5, that keep the version before for a week after a release. It
    shows what the release does. 0: nobody."""
    deadline_ms: float = 200.0
    """Milliseconds after which the gateway answers without the model."""
    keep_alive_s: int = Field(620, ge=1)
    """Seconds for which the gateway keeps an idle connection: longer than load balancers do, which
    would send a request into a connection that is just being closed. Google's keep theirs for 600,
    the others for about 60."""
    project: str = ""
    """Name of the project: only who has the same one may replace its deployments on a Prefect
    server. By default each home has one of its own."""
    mlflow_url: str = ""
    """MLflow tracking server; default: the one that `make up` recorded, else a SQLite file under
    `home`. A user and password in it become MLflow's own variables, so that no message has them."""

    def model_post_init(self, _: object) -> None:
        self.home = plain_names.link_to(self.home.expanduser().absolute())
        self.lake = place(self.lake or str(self.home / "lake"))
        self.releases = place(self.releases or str(self.home / "releases"))
        self.training = place(self.training or str(self.home / "training"))
        self.triton_repository = place(self.triton_repository or str(self.home / "triton"))
        self.spool = place(self.spool or str(self.home / "spool"))
        if self.mapping:
            self.mapping = place(self.mapping)
        self.triton_url = self.triton_url or self.running.get("triton", {}).get("grpc", "")
        self.mlflow_url = (
            self.mlflow_url
            or self.running.get("mlflow", {}).get("url", "")
            or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"
        )
        self.mlflow_url = without_login(self.mlflow_url)

    @property
    def spools(self) -> tuple[Path, Path]:
        """Folders of the segments with exposures, and with feedback."""
        return Path(self.spool) / "exposures", Path(self.spool) / "feedback"

    @cached_property
    def running(self) -> dict[str, dict]:
        """Addresses and process ids of the local stack, by service, as `run.json` records them."""
        path = self.home / RUN
        if not path.exists():
            return {}
        return json.loads(path.read_text())

    @property
    def prefect_api_url(self) -> str:
        """Prefect's API: that of PREFECT_API_URL, or of Prefect's active profile, else the local
        stack's; empty if none runs."""
        given = named_prefect_api()
        if given:
            return given
        recorded = self.running.get("prefect", {}).get("api", "")
        if recorded and listens(recorded):
            return recorded
        return ""


def place(given: str) -> str:
    """A path as an absolute one, or an address such as s3://bucket/prefix as it is. `~` is the home
    folder of the user, as in a shell."""
    if "://" in given:
        return given
    return str(Path(given).expanduser().absolute())


def without_login(url: str) -> str:
    """The address without the user and password in it, which MLflow's client gets instead."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("http") or parts.username is None:
        return url
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))


def use_recorded_prefect() -> bool:
    """Let flows that are called from a shell run on the Prefect server of the local stack, unless
    PREFECT_API_URL or Prefect's profile names one. If none runs, say what follows, and return
    False.

    Prefect reads the variable when it is imported.
    """
    if named_prefect_api():
        return True
    here = settings()
    api = here.prefect_api_url
    why = f"PREFECT_API_URL is not set, and no stack of {here.home} runs (`make up`)"
    if api and "prefect" not in sys.modules:
        os.environ["PREFECT_API_URL"] = api
        return True
    if api:
        why = f"prefect was imported before flows: import it later, or set PREFECT_API_URL={api}"
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    print(
        f"No Prefect server: {why}. Flows run on a temporary one: their runs are not kept, and "
        "nobody hears their events.",
        file=sys.stderr,
    )
    return False


def named_prefect_api() -> str:
    """The address of PREFECT_API_URL, or the one that `prefect config set` has written into the
    active profile; empty if there is none."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        return given
    folder = os.environ.get("PREFECT_HOME", "~/.prefect")
    address = os.environ.get("PREFECT_PROFILES_PATH", f"{folder}/profiles.toml")
    path = Path(address).expanduser()
    if not path.exists():
        return ""
    content = tomllib.loads(path.read_text())
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    return content.get("profiles", {}).get(active, {}).get("PREFECT_API_URL", "")


def listens(url: str) -> bool:
    """Whether a server of this machine takes connections at the address."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=2).close()
    except OSError:
        return False
    return True


def settings() -> Settings:
    """The settings of this moment: tests and long-lived workers see changes. Raises WrongSetting.

    They are read anew only after a change, because flows ask for them hundreds of times.
    """
    variables = tuple(
        (name, value)
        for name, value in os.environ.items()
        if name == "HOME" or name.upper().startswith(PREFIX)
    )
    folder = os.getcwd()
    return _read(variables, folder, _stamp(_home(variables, folder) / RUN))


@lru_cache(maxsize=4)
def _home(variables: tuple[tuple[str, str], ...], folder: str) -> Path:
    """`Settings.home` in an environment and a working directory."""
    return _checked().home


@lru_cache(maxsize=4)
def _read(variables: tuple[tuple[str, str], ...], folder: str, stamp: tuple[int, ...]) -> Settings:
    """The settings in an environment and a working directory, beside a `run.json`."""
    return _checked()


def _checked() -> Settings:
    """The settings. Raises WrongSetting."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            f"{PREFIX}{fault['loc'][0]}".upper() + f" is {fault['input']!r}: {fault['msg']}."
            for fault in error.errors()
        ]
        raise WrongSetting(f"{' '.join(faults)} See docs/settings.md.") from error


def _stamp(path: Path) -> tuple[int, ...]:
    """What is another after a file was replaced; empty if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
