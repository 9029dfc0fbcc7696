"""The programs a cluster is made of: found, or built from the pinned Go modules with progress in sight.

Versions come from `tests/cluster/tools/<product>/go.mod`. A program is taken from `HAMI_CLUSTER_BIN` (a folder whose
contents are trusted), from the cache (`<cache>/<product>-<version>/`), or from PATH if it reports the pinned version;
else it is built into the cache.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.harness.layout import REPOSITORY

TOOLS: Final = REPOSITORY / "tests" / "cluster" / "tools"
_STRIP: Final = "-s -w"


class Missing(RuntimeError):
    """Something the machine lacks; the text says what and the command that brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A Go module and how its programs are linked."""

    name: str
    module: str
    tags: str = ""
    stamps: tuple[str, ...] = ()
    """Linker variables that carry the version; without them a program reports none. `{v}` is v1.2.3, `{n}` is 1.2.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    product: Product
    name: str
    package: str
    version_words: tuple[str, ...] = ("--version",)
    """How it is asked for its version."""


_KUBE_STAMP: Final = "k8s.io/component-base/version."
_K8S: Final = Product(
    name="k8s",
    module="k8s.io/kubernetes",
    stamps=(_KUBE_STAMP + "gitVersion={v}", _KUBE_STAMP + "gitMajor={major}", _KUBE_STAMP + "gitMinor={minor}"),
)
_ETCD: Final = Product(name="etcd", module="go.etcd.io/etcd/server/v3")
_CONTAINERD: Final = Product(
    name="containerd",
    module="github.com/containerd/containerd/v2",
    tags="no_btrfs no_zfs no_devmapper",
    stamps=("github.com/containerd/containerd/v2/version.Version={n}",),
)
# helm renders for Kubernetes 1.20 unless it is told the version it was built for.
_HELM: Final = Product(
    name="helm",
    module="helm.sh/helm/v3",
    stamps=(
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={k8s_minor}",
        "helm.sh/helm/v3/internal/version.version={v}",
    ),
)

# In the order in which a cold build is shortest: the API server compiles the packages the others share.
PROGRAMS: Final = (
    Program(product=_ETCD, name="etcd", package=_ETCD.module),
    *(
        Program(product=_K8S, name=name, package=f"{_K8S.module}/cmd/{name}")
        for name in ("kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubelet")
    ),
    Program(product=_K8S, name="kubectl", package=f"{_K8S.module}/cmd/kubectl", version_words=("version", "--client")),
    *(
        Program(product=_CONTAINERD, name=name, package=f"{_CONTAINERD.module}/cmd/{name}", version_words=("-v",))
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    Program(product=_HELM, name="helm", package=f"{_HELM.module}/cmd/helm", version_words=("version", "--short")),
)

DEBIAN: Final = {
    "runc": ("runc", "/usr/sbin/runc"),
    "busybox": ("busybox-static", "/bin/busybox"),
    "ptp": ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    "ip": ("iproute2", ""),
    "iptables": ("iptables", ""),
    "openssl": ("openssl", ""),
    "gcc": ("gcc libc6-dev", ""),
}
"""Program -> its Debian package and, where PATH does not lead there, its place."""


def version(product: Product) -> str:
    """The version `go.mod` pins, `v1.36.3`."""
    text = (TOOLS / product.name / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^(?:require)?\s*{re.escape(product.module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{product.name}/go.mod does not require {product.module}")
    return found[1]


def cache() -> Path:
    """`HAMI_CLUSTER_CACHE`, else below the user's cache folder."""
    if chosen := os.environ.get("HAMI_CLUSTER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hami" / "cluster"


def debian_tools() -> None:
    """Check for the Debian packages; as root on a machine with apt they are installed. Raises `Missing`."""
    absent = sorted({package for name, (package, _) in DEBIAN.items() if debian_path(name) is None})
    if not absent:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *" ".join(absent).split()]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"cluster tests need {', '.join(absent)}: run {' '.join(command)} as root")
    _say(f"installing {', '.join(absent)}")
    for step in (["apt-get", "update"], command):
        done = subprocess.run(
            step, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Missing(f"{' '.join(step)} failed:\n{done.stderr.strip() or done.stdout[-2000:]}")


def debian_path(name: str) -> Path | None:
    """Where a program of `DEBIAN` is, None if it is not installed."""
    fixed = DEBIAN[name][1]
    found = fixed if fixed and os.access(fixed, os.X_OK) else shutil.which(name)
    # The package busybox has the same path, but its program needs libraries that an image would have to bring.
    if found and name == "busybox" and b"/ld-linux" in Path(found).read_bytes():
        return None
    return Path(found) if found else None


def ensure(names: Iterable[str] | None = None) -> dict[str, Path]:
    """Where each program is (all of them by default); what is not there is built. Raises `Missing`."""
    wanted = [program for program in PROGRAMS if names is None or program.name in set(names)]
    found = {program.name: path for program in wanted if (path := _find(program)) is not None}
    to_build = [program for program in wanted if program.name not in found]
    for position, program in enumerate(to_build, start=1):
        found[program.name] = _build(program, f"{position} of {len(to_build)}")
    return found


def _find(program: Program) -> Path | None:
    given = os.environ.get("HAMI_CLUSTER_BIN")
    for place in (Path(given) / program.name if given else None, _cached(program)):
        if place is not None and os.access(place, os.X_OK):
            return place
    on_path = shutil.which(program.name)
    return Path(on_path) if on_path and _reports(on_path, program) else None


def _cached(program: Program) -> Path:
    return cache() / f"{program.product.name}-{version(program.product)}" / program.name


def _reports(path: str, program: Program) -> bool:
    """Whether the program on PATH is of the pinned version."""
    try:
        done = subprocess.run([path, *program.version_words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    number = re.escape(version(program.product).removeprefix("v"))
    return re.search(rf"(?<![\d.]){number}(?![\d.])", done.stdout + done.stderr) is not None


def _build(program: Program, position: str) -> Path:
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    if go is None:
        raise Missing(
            f"{program.name} {version(program.product)} is neither in {cache()} nor on PATH, and Go is not installed "
            "to build it: install Go 1.21 or newer (it fetches the toolchain go.mod asks for), or set HAMI_CLUSTER_BIN"
        )
    target = _cached(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target under a name of our own, so that two builds at once never show a half-written program.
    partial = target.with_name(f".{program.name}.{os.getpid()}")
    argv = [go, "build", "-trimpath", "-o", str(partial), "-ldflags", _link_flags(program.product)]
    if program.product.tags:
        argv += ["-tags", program.product.tags]
    what = f"building {program.name} {version(program.product)} ({position})"
    log = target.with_name(f"{program.name}.log")
    try:
        with log.open("wb") as out:
            _follow([*argv, program.package], cwd=TOOLS / program.product.name, out=out.fileno(), what=what)
        partial.rename(target)
    except subprocess.CalledProcessError:
        raise Missing(f"{what} failed:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}") from None
    finally:
        partial.unlink(missing_ok=True)
    log.unlink()
    return target


def _follow(argv: Sequence[str], *, cwd: Path, out: int, what: str) -> None:
    """Run a build; one line when it starts, one every 15 s, one when it is done."""
    began = time.monotonic()
    _say(what)
    environment = {**os.environ, "CGO_ENABLED": "0"}
    with subprocess.Popen(argv, cwd=cwd, stdout=out, stderr=out, env=environment) as child:
        try:
            while True:
                try:
                    code = child.wait(timeout=15)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"{what}: {time.monotonic() - began:.0f} s")
        except BaseException:
            child.terminate()
            raise
    if code:
        raise subprocess.CalledProcessError(code, argv)
    _say(f"{what}: done in {time.monotonic() - began:.0f} s")


def _link_flags(product: Product) -> str:
    full = version(product)
    major, minor = full.removeprefix("v").split(".")[:2]
    values = {"v": full, "n": full.removeprefix("v"), "major": major, "minor": minor,
              "k8s_minor": version(_K8S).split(".")[1]}  # fmt: skip
    return " ".join([_STRIP, *(f"-X {stamp.format_map(values)}" for stamp in product.stamps)])


def _say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)
