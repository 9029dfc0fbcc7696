"""What the chart renders: HAMi's names, configuration our readers accept, clear refusals of values that cannot work."""

import base64
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from hami.agent import hostpid
from hami.alloc.grant import LOCK
from hami.cli.agent import agent
from hami.cli.flags import normalise
from hami.cli.scheduler import scheduler
from hami.model import units
from hami.model.names import VendorWord
from hami.model.settings import DEFAULT_DEVICE_CONFIG, read_device_config
from hami.model.vendor import Registry, Vendor
from hami.node import cgroups, mps
from hami.vendors import ALL, registry
from tests.deploy.conftest import CHART, Render, RenderError

OF_CHIPS = ("vnpus", "iluvatars")
"""Sections whose names follow from chips' names."""


def one(objects: Iterable[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    found = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)} found"
    return found[0]


def pod_spec(objects: Iterable[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(objects, kind, name)["spec"]["template"]["spec"]
    return spec


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [c for c in spec["containers"] if c["name"] == name]
    return dict(found)


def test_it_lints(helm: Path) -> None:
    done = subprocess.run([str(helm), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_objects_carry_the_names_other_programs_look_for(render: Render) -> None:
    objects = render()
    names = {(o["kind"], o["metadata"]["name"]) for o in objects}
    assert names >= {
        ("Deployment", "hami-scheduler"),
        ("Service", "hami-scheduler"),
        ("ConfigMap", "hami-scheduler"),
        ("ConfigMap", "hami-scheduler-device"),
        ("MutatingWebhookConfiguration", "hami-webhook"),
        ("DaemonSet", "hami-device-plugin"),
        ("ConfigMap", "hami-device-plugin"),
        ("Service", "hami-device-plugin-monitor"),
        ("ClusterRole", "hami-device-plugin-monitor"),
        ("ClusterRoleBinding", "hami-scheduler-kube"),
        ("ClusterRoleBinding", "hami-scheduler-volume"),
    }
    assert ("Secret", "hami-scheduler-tls") not in names, (
        "HAMi's Secret has no owner marks; an upgrade would fail on it"
    )


def test_selectors_stay_as_they_are_in_running_releases(render: Render) -> None:
    objects = render()
    for kind, name, component in [
        ("Deployment", "hami-scheduler", "hami-scheduler"),
        ("DaemonSet", "hami-device-plugin", "hami-device-plugin"),
    ]:
        assert one(objects, kind, name)["spec"]["selector"]["matchLabels"] == {
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/name": "hami",
            "app.kubernetes.io/instance": "hami",
        }


def test_the_device_configuration_is_what_our_reader_takes_for_its_defaults(render: Render) -> None:
    text = one(render(), "ConfigMap", "hami-scheduler-device")["data"]["device-config.yaml"]
    config = read_device_config(yaml.safe_load(text))
    assert config.warnings == ()
    assert config.nvidia == DEFAULT_DEVICE_CONFIG.nvidia


EVERY_FAMILY = ("devices.ascend.enabled=true", "devices.iluvatar.enabled=true")


def families(objects: list[dict[str, Any]]) -> Registry:
    text = one(objects, "ConfigMap", "hami-scheduler-device")["data"]["device-config.yaml"]
    config = read_device_config(yaml.safe_load(text))
    assert config.warnings == ()
    return registry(config, ascend=True, iluvatar=True)


def managed(objects: list[dict[str, Any]]) -> dict[str, bool]:
    config = yaml.safe_load(one(objects, "ConfigMap", "hami-scheduler")["data"]["config.yaml"])
    return {entry["name"]: entry["ignoredByScheduler"] for entry in config["extenders"][0]["managedResources"]}


def test_every_family_is_configured_as_it_is_declared(render: Render) -> None:
    found, declared = families(render(*EVERY_FAMILY)), registry(DEFAULT_DEVICE_CONFIG, ascend=True, iluvatar=True)
    assert [vendor.name for vendor in found] == [vendor.name for vendor in declared]
    for vendor in found:
        ours, own = vendor, declared[vendor.name]
        assert ours.resources == own.resources
        assert (ours.memory_factor, ours.default_count, ours.runtime_class, ours.hide_unrequested) == (
            own.memory_factor,
            own.default_count,
            own.runtime_class,
            own.hide_unrequested,
        )
        chip, own_chip = (getattr(one.shape, "__self__", None) for one in (ours, own))
        assert chip == own_chip, "a chip's templates and budgets"


@pytest.mark.parametrize("vendor", [one for one in ALL if one.config_section not in OF_CHIPS], ids=lambda one: one.name)
def test_every_amount_has_its_unit_beside_it(vendor: Vendor) -> None:
    said = {
        value: comment
        for line in (CHART / "values.yaml").read_text().splitlines()
        for entry, _, comment in [line.partition(" # ")]
        for value in [entry.partition(": ")[2].strip()]
        if comment
    }
    names = vendor.resources
    assert all(said.get(name) for name in names.names())
    if names.memory:
        factor = vendor.memory_factor
        unit = {1: "MiB", units.GIB: "GiB"}.get(factor, f"units of {factor} MiB")
        assert said[names.memory].startswith(unit)
    if names.cores:
        assert units.core_unit(vendor) in said[names.cores]


def test_every_name_of_every_family_is_the_extenders(render: Render) -> None:
    objects = render(*EVERY_FAMILY)
    names = managed(objects)
    assert set(names) >= {name for vendor in families(objects) for name in vendor.resources.names()}
    # What plug-ins publish as amounts of the node, the kubelet counts; so kube-scheduler must, too.
    assert {name for name, ignored in names.items() if not ignored} == {
        "cambricon.com/mlu.smlu.vmemory",
        "cambricon.com/mlu.smlu.vcore",
        "mthreads.com/sgpu-memory",
        "mthreads.com/sgpu-core",
    }


def test_a_renamed_resource_is_renamed_everywhere(render: Render) -> None:
    objects = render("dcuResourceName=example.com/dcu", "devices.mthreads.customresources={example.com/extra}")
    assert families(objects)[VendorWord("DCU")].resources.count == "example.com/dcu"
    names = managed(objects)
    assert names["example.com/dcu"]
    assert names["example.com/extra"]
    assert "hygon.com/dcunum" not in names


@pytest.mark.parametrize("family", ["ascend", "iluvatar"])
def test_families_that_are_off_by_default_bring_their_flag(render: Render, family: str) -> None:
    def arguments(*values: str) -> list[str]:
        found: list[str] = container(
            pod_spec(render(*values), "Deployment", "hami-scheduler"), "vgpu-scheduler-extender"
        )["args"]
        return found

    assert f"--enable-{family}" not in arguments()
    assert f"--enable-{family}" in arguments(f"devices.{family}.enabled=true")


def test_a_family_that_is_turned_off_has_no_section(render: Render) -> None:
    objects = render("devices.hygon.enabled=false")
    assert families(objects).get("DCU") is None
    assert "hygon.com/dcunum" not in managed(objects)


def test_values_reach_the_device_configuration(render: Render) -> None:
    objects = render(
        "resourceName=example.com/gpu", "devicePlugin.deviceSplitCount=4", "devicePlugin.disablecorelimit=true"
    )
    text = one(objects, "ConfigMap", "hami-scheduler-device")["data"]["device-config.yaml"]
    nvidia = yaml.safe_load(text)["nvidia"]
    assert (nvidia["resourceCountName"], nvidia["deviceSplitCount"], nvidia["gpuCorePolicy"]) == (
        "example.com/gpu",
        4,
        "disable",
    )
    scheduler = yaml.safe_load(one(objects, "ConfigMap", "hami-scheduler")["data"]["config.yaml"])
    assert {"name": "example.com/gpu", "ignoredByScheduler": True} in scheduler["extenders"][0]["managedResources"]


def test_filter_and_bind_are_served_on_loopback_only(render: Render) -> None:
    objects = render()
    config = yaml.safe_load(one(objects, "ConfigMap", "hami-scheduler")["data"]["config.yaml"])
    (extender,) = config["extenders"]
    assert extender["urlPrefix"] == "http://127.0.0.1:9440"
    assert extender["nodeCacheCapable"] is True
    assert "prioritizeVerb" not in extender
    arguments = container(pod_spec(objects, "Deployment", "hami-scheduler"), "vgpu-scheduler-extender")["args"]
    assert "--extender_bind=127.0.0.1:9440" in arguments


@pytest.mark.parametrize("value", ["true", "false"])
def test_scoring_with_the_request_is_a_flag(render: Render, value: str) -> None:
    spec = pod_spec(render(f"scheduler.scoreRequest={value}"), "Deployment", "hami-scheduler")
    assert ("--score-request" in container(spec, "vgpu-scheduler-extender")["args"]) is (value == "true")


def test_a_ranked_answer_brings_its_verb(render: Render) -> None:
    config = yaml.safe_load(
        one(render("scheduler.filterAnswer=ranked"), "ConfigMap", "hami-scheduler")["data"]["config.yaml"]
    )
    assert config["extenders"][0]["prioritizeVerb"] == "prioritize"


def test_the_webhook_trusts_the_certificate_that_is_served(render: Render) -> None:
    objects = render()
    secret = one(objects, "Secret", "hami-scheduler-serving")["data"]
    webhook = one(objects, "MutatingWebhookConfiguration", "hami-webhook")["webhooks"][0]
    assert webhook["name"] == "vgpu.hami.io"
    assert webhook["clientConfig"]["caBundle"] == secret["ca"]
    assert b"BEGIN CERTIFICATE" in base64.b64decode(secret["tls.crt"])
    assert webhook["failurePolicy"] == "Ignore"
    for selector in ("namespaceSelector", "objectSelector"):
        assert {"key": "hami.io/webhook", "operator": "NotIn", "values": ["ignore"]} in webhook[selector][
            "matchExpressions"
        ]


def test_the_scheduler_pod_needs_no_privilege(render: Render) -> None:
    spec = pod_spec(render(), "Deployment", "hami-scheduler")
    assert spec["securityContext"]["runAsNonRoot"] is True
    for each in spec["containers"]:
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_roles_hold_no_write_beyond_what_is_done(render: Render) -> None:
    writes = {"create", "update", "patch", "delete", "deletecollection", "*"}
    allowed = {
        "hami-scheduler": {
            ("pods", "patch"),
            ("pods/binding", "create"),
            ("nodes", "patch"),
            ("events", "create"),
            ("events", "patch"),
        },
        "hami-device-plugin-monitor": {
            ("pods", "patch"),
            ("nodes", "patch"),
            ("events", "create"),
            ("events", "patch"),
        },
    }
    objects = render()
    for name, expected in allowed.items():
        rules = one(objects, "ClusterRole", name)["rules"]
        given = {(r, v) for rule in rules for r in rule["resources"] for v in rule["verbs"] if v in writes}
        assert given == expected


def test_both_containers_of_the_plugin_meet_in_one_directory(render: Render) -> None:
    spec = pod_spec(render("global.gpuHookPath=/opt/gpu"), "DaemonSet", "hami-device-plugin")
    environment = {
        name: {e["name"]: e.get("value") for e in container(spec, name)["env"]}
        for name in ("device-plugin", "vgpu-monitor")
    }
    assert environment["device-plugin"]["HOOK_PATH"] == "/opt/gpu"
    assert environment["vgpu-monitor"]["HOOK_PATH"] == "/opt/gpu/vgpu"
    (host,) = [v["hostPath"]["path"] for v in spec["volumes"] if v["name"] == "lib"]
    assert host == "/opt/gpu/vgpu"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("devicePlugin.libPath=/opt/elsewhere", "devicePlugin.libPath"),
        ("devicePlugin.monitor.ctrPath=/opt/elsewhere", "devicePlugin.monitor.ctrPath"),
        ("scheduler.extender.image.repository=projecthami/hami", "image.allowForeign"),
        ("scheduler.defaultSchedulerPolicy.nodeSchedulerPolicy=sideways", "nodeSchedulerPolicy"),
        ("devicePlugin.deviceSplitCount=0", "deviceSplitCount"),
        ("resourceName=gpu", "resourceName"),
        ("dcuResourceName=dcu", "dcuResourceName"),
        ("devices.ascend.enabled=yes", "ascend"),
        ("devices.amd.native=yes", "native"),
        ("devices.amd.rocmPath=rocm", "rocmPath"),
        ("scheduler.nodeLockExpire=soon", "nodeLockExpire"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(render: Render, value: str, message: str) -> None:
    with pytest.raises(RenderError, match=message):
        render(value)


@pytest.mark.parametrize("kube", ["1.23.0", "1.26.0", "1.30.0", "1.33.0", "1.35.0", "1.36.0", "1.37.0"])
def test_it_renders_for_every_supported_version(render: Render, kube: str) -> None:
    objects = render(kube=kube)
    text = one(objects, "ConfigMap", "hami-scheduler")["data"]["config.yaml"]
    minor = int(kube.split(".")[1])
    assert yaml.safe_load(text)["apiVersion"].endswith("v1" if minor >= 25 else "v1beta2")
    image = container(pod_spec(objects, "Deployment", "hami-scheduler"), "kube-scheduler")["image"]
    assert image == f"registry.k8s.io/kube-scheduler:v{kube}"


def test_a_mirror_keeps_the_path_people_have_there(render: Render) -> None:
    spec = pod_spec(render("global.imageRegistry=mirror.example.com"), "Deployment", "hami-scheduler")
    assert container(spec, "kube-scheduler")["image"].startswith("mirror.example.com/google_containers/kube-scheduler:")
    assert container(spec, "vgpu-scheduler-extender")["image"].startswith("mirror.example.com/hami/hami:")


def test_without_leader_election_only_one_decides(render: Render) -> None:
    spec = one(render("scheduler.leaderElect=false", "scheduler.replicas=3"), "Deployment", "hami-scheduler")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_cert_manager_takes_over_the_pair(render: Render) -> None:
    objects = render("scheduler.certManager.enabled=true")
    assert not [o for o in objects if o["kind"] == "Secret"]
    webhook = one(objects, "MutatingWebhookConfiguration", "hami-webhook")
    assert "caBundle" not in webhook["webhooks"][0]["clientConfig"]
    assert one(objects, "Certificate", "hami-scheduler-serving-cert")["spec"]["secretName"] == "hami-scheduler-serving"


def test_what_grants_mount_from_the_node_is_the_nodes_own(render: Render) -> None:
    """The agent makes these directories for containers; made inside its own container they would not exist for them."""
    spec = pod_spec(render(), "DaemonSet", "hami-device-plugin")
    hosts = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    mounts = {m["mountPath"]: hosts.get(m["name"]) for m in container(spec, "device-plugin")["volumeMounts"]}
    for path in (LOCK, "/usr/local/vgpu", "/var/run/cdi", "/var/lib/kubelet/device-plugins", str(cgroups.ROOT)):
        assert mounts.get(path) == path, path
    assert mounts.get(str(hostpid.DIRECTORY.parent)) == str(hostpid.DIRECTORY.parent)


@pytest.mark.parametrize(
    ("values", "cap", "broker"),
    [
        ([], "true", "true"),
        (["devicePlugin.driverCap=false"], "false", "true"),
        (["devicePlugin.hostPIDBroker.enabled=false"], "true", "false"),
        (["devicePlugin.hostPID=false"], "true", "false"),
    ],
    ids=str,
)
def test_what_the_node_side_enforces_by(render: Render, values: list[str], cap: str, broker: str) -> None:
    """Without the node's pids the broker would tell wrong ones."""
    spec = pod_spec(render(*values), "DaemonSet", "hami-device-plugin")
    arguments = container(spec, "device-plugin")["args"]
    assert f"--driver-cap={cap}" in arguments
    assert f"--host-pid-broker={broker}" in arguments
    assert f"--driver-cap={cap}" in container(spec, "vgpu-monitor")["args"]


@pytest.mark.parametrize(
    ("values", "native"),
    [
        ([], False),
        (["devices.amd.native=true"], True),
        (["devices.amd.native=true", "devices.amd.enabled=false"], False),
    ],
    ids=str,
)
def test_who_hands_out_amds_gpus(render: Render, values: list[str], native: bool) -> None:
    """Its vendor's plug-in, unless somebody says otherwise; then the agent finds the node's ROCm."""
    spec = pod_spec(render(*values, "devices.amd.rocmPath=/opt/rocm-7"), "DaemonSet", "hami-device-plugin")
    plugin, monitor = container(spec, "device-plugin"), container(spec, "vgpu-monitor")
    for each in (plugin, monitor):
        assert f"--amd={str(native).lower()}" in each["args"]
    wanted = [{"name": "rocm", "hostPath": {"path": "/opt/rocm-7", "type": "DirectoryOrCreate"}}] if native else []
    assert [volume for volume in spec["volumes"] if volume["name"] == "rocm"] == wanted
    mounted = [mount["mountPath"] for mount in plugin["volumeMounts"] if mount["name"] == "rocm"]
    assert mounted == (["/opt/rocm-7"] if native else [])
    assert [e["value"] for e in plugin["env"] if e["name"] == "ROCM_PATH"] == mounted


def test_programs_under_mps_are_given_what_the_daemon_has(render: Render) -> None:
    spec = pod_spec(render(), "DaemonSet", "hami-device-plugin")
    plugin = container(spec, "device-plugin")
    [name] = [m["name"] for m in plugin["volumeMounts"] if m["mountPath"] == str(mps.SHM)]
    [path] = [v["hostPath"]["path"] for v in spec["volumes"] if v["name"] == name]
    assert f"--mps-shm={path}" in plugin["args"]


@pytest.mark.parametrize(
    ("kind", "owner", "name", "function"),
    [
        ("Deployment", "hami-scheduler", "vgpu-scheduler-extender", scheduler),
        ("DaemonSet", "hami-device-plugin", "device-plugin", agent),
        ("DaemonSet", "hami-device-plugin", "vgpu-monitor", agent),
    ],
)
def test_our_commands_take_the_arguments_the_chart_passes(
    render: Render, kind: str, owner: str, name: str, function: Callable[..., None]
) -> None:
    arguments = container(pod_spec(render("scheduler.nodeLabelSelector.a=b"), kind, owner), name)["args"]
    app = typer.Typer(add_completion=False)
    app.command()(function)
    words = normalise([function.__name__, *arguments])[1:]
    # Parsing only: nothing is started.
    typer.main.get_command(app).make_context(function.__name__, words)
