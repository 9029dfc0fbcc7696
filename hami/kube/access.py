"""How to reach the API server: kubeconfig file, environment, home folder, or the pod's service account.

The reading is kubernetes-asyncio's; this module only decides which source applies and turns its exceptions into ours.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import yaml
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from hami.kube.errors import ConfigError


async def configuration(kubeconfig: str | None, environ: Mapping[str, str] = os.environ) -> Configuration:
    """The connection settings: `kubeconfig` if given, else `KUBECONFIG`, `~/.kube/config`, the service account.

    Raises ConfigError, which names the source that was tried.
    """
    settings = Configuration()
    source = kubeconfig or environ.get("KUBECONFIG") or _home_config(environ)
    try:
        if source is None:
            source = "the pod's service account"
            load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            _check_files(source)
            await load_kube_config(config_file=source, client_configuration=settings, persist_config=False)
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AssertionError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {source}: {error}") from error
    return settings


def session(settings: Configuration) -> aiohttp.ClientSession:
    """An HTTP session with the settings' certificates, proxy and pool."""
    try:
        made: aiohttp.ClientSession = RESTClientObject(settings).pool_manager
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use the certificates for {settings.host}: {error}") from error
    return made


def _check_files(source: str) -> None:
    for path in source.split(os.pathsep):
        if not Path(path).is_file():
            raise ConfigError(f"kubeconfig {path}: no such file")


def _home_config(environ: Mapping[str, str]) -> str | None:
    home = environ.get("HOME")
    path = Path(home, ".kube", "config") if home else None
    return str(path) if path is not None and path.is_file() else None
