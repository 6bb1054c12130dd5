"""The manifests for KubeRay are ones that Kubernetes takes with its definitions."""

import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest

from tests.cluster.files import ROOT, capitals, parsed, put_in, schema
from tests.composing import compose

CLUSTER, JOB = "cluster/kuberay/raycluster.yaml", "cluster/kuberay/rayjob.yaml"

manifest = pytest.mark.parametrize("name", [CLUSTER, JOB])


def strict(node: Any) -> Any:
    """A schema that refuses unknown keys, which Kubernetes drops without a word, and
    takes text or number where that is what it means by them."""
    if isinstance(node, list):
        return [strict(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: strict(value) for key, value in node.items()}
    if "properties" in node and "additionalProperties" not in node:
        found["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    return found


@cache
def validators() -> dict[str, Any]:
    """By kind, of `spec`; a RayJob's holds that of a RayCluster."""
    job = strict(schema("rayjobs.v1.schema.json.gz"))["properties"]["spec"]
    cluster = job["properties"]["rayClusterSpec"]
    kinds = {"RayJob": job, "RayCluster": cluster}
    return {kind: jsonschema.Draft202012Validator(s) for kind, s in kinds.items()}


def wrong(document: dict[str, Any]) -> list[str]:
    """What the definitions have against a manifest."""
    assert document["apiVersion"] == "ray.io/v1"
    found = validators()[document["kind"]].iter_errors(document["spec"])
    return [error.message for error in found]


def cluster_of(name: str) -> dict[str, Any]:
    spec = parsed(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def groups(name: str) -> list[dict[str, Any]]:
    spec = cluster_of(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """A pod's specification and its one container."""
    for group in groups(name):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        yield pod, container


@manifest
def test_the_definitions_have_nothing_against_it(name: str) -> None:
    assert wrong(parsed(name)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("tolerationz", []), ("terminationGracePeriodSeconds", "long"), ("containers", 0)],
)
@manifest
def test_a_mistake_in_a_pod_is_found(name: str, key: str, value: Any) -> None:
    document = parsed(name)
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    spec["workerGroupSpecs"][0]["template"]["spec"][key] = value
    assert len(wrong(document)) == 1


def test_a_mistake_beside_the_pods_is_found() -> None:
    document = parsed(JOB)
    document["spec"]["shutdownAfterJobFinished"] = True
    document["spec"]["rayClusterSpec"]["authOptions"] = {"mode": "tokens"}
    assert len(wrong(document)) == 2


def test_both_have_the_same_cluster_but_for_where_the_dashboard_listens() -> None:
    kept, gone = cluster_of(CLUSTER), cluster_of(JOB)
    heads = [spec["headGroupSpec"]["rayStartParams"] for spec in (kept, gone)]
    listens = [head.pop("dashboard-host") for head in heads]
    assert listens == ["127.0.0.1", "0.0.0.0"], "the operator asks that of a RayJob"
    assert kept == gone


@manifest
def test_it_is_private_and_asks_for_a_token(name: str) -> None:
    spec = cluster_of(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in spec["headGroupSpec"]
    _, head = next(pods(name))
    assert 10001 not in {port["containerPort"] for port in head["ports"]}


def test_the_network_policy_is_of_all_ray_pods() -> None:
    policy = parsed("cluster/kuberay/network.yaml")
    assert (policy["apiVersion"], policy["kind"]) == (
        "networking.k8s.io/v1",
        "NetworkPolicy",
    )
    # The label that KubeRay gives to every pod with Ray.
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    everything, metrics = policy["spec"]["ingress"]
    assert "ports" not in everything
    here, operator = everything["from"]
    assert here == {"podSelector": {}}, "pods of this namespace"
    assert operator["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "kuberay-system"
    }
    # Those whom a namespace's label lets in read metrics, and submit no jobs.
    (source,), (port,) = metrics["from"], metrics["ports"]
    label = source["namespaceSelector"]["matchLabels"]
    assert label == {"rrl-dist/metrics": "read"}
    _, head = next(pods(CLUSTER))
    ports = {one["name"]: one["containerPort"] for one in head["ports"]}
    assert port == {"protocol": "TCP", "port": ports["metrics"]}


@manifest
def test_the_head_holds_no_work(name: str) -> None:
    assert groups(name)[0]["rayStartParams"]["num-cpus"] == "0"


@manifest
def test_it_is_of_the_version_of_ray_that_is_pinned(name: str) -> None:
    pinned = (ROOT / "docker/constraints.txt").read_text().splitlines()
    assert f"ray=={cluster_of(name)['rayVersion']}" in pinned


@manifest
def test_every_pod_shares_the_claim_and_has_memory_for_shm(name: str) -> None:
    claim = parsed("cluster/kuberay/storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group, (pod, container) in zip(groups(name), pods(name), strict=True):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        places = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
        shared = places["/shared"]["persistentVolumeClaim"]["claimName"]
        assert shared == claim["metadata"]["name"]
        shm = places["/dev/shm"]["emptyDir"]
        assert shm["medium"] == "Memory"
        room = int(shm["sizeLimit"].removesuffix("Gi")) * 2**30
        assert room > int(group["rayStartParams"]["object-store-memory"])
        memory = container["resources"]["limits"]["memory"]
        assert room < int(memory.removesuffix("Gi")) * 2**30, "it counts as the pod's"


@manifest
def test_no_pod_is_root(name: str) -> None:
    for pod, container in pods(name):
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile()
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def dockerfile() -> str:
    return (ROOT / "docker/Dockerfile").read_text()


@manifest
def test_a_spot_pod_leaves_in_time(name: str) -> None:
    """Its hook ends before Kubernetes ends it, and calls what the image has."""
    for pod, container in list(pods(name))[1:]:
        command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert pod["terminationGracePeriodSeconds"] > int(seconds)
        assert (ROOT / command.removeprefix("/rrl_dist/")).is_file()
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= {
            toleration["key"] for toleration in pod["tolerations"]
        }


@manifest
def test_every_pod_knows_by_which_interface_others_reach_it(name: str) -> None:
    for _, container in pods(name):
        told = {entry["name"]: entry["value"] for entry in container["env"]}
        assert told["NCCL_SOCKET_IFNAME"] == told["GLOO_SOCKET_IFNAME"]


@manifest
def test_keys_come_from_a_secret(name: str) -> None:
    for _, container in pods(name):
        assert container["envFrom"] == [
            {"secretRef": {"name": "rrl-s3", "optional": True}}
        ]


def test_the_job_has_room_for_its_workers_and_is_gone_afterwards() -> None:
    spec = parsed(JOB)["spec"]
    program, command, *overrides = shlex.split(spec["entrypoint"])
    assert program == "rrl"
    asked = compose(command, *overrides)["cluster"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert group["minReplicas"] == group["replicas"]
    assert asked["workers"] == gpus * group["minReplicas"], "or it is refused at once"
    assert asked["min_workers"] == gpus * (group["minReplicas"] - 1)
    assert spec["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("name", [CLUSTER, JOB, "cluster/kuberay/storage.yaml"])
def test_the_head_of_a_file_names_all_that_is_to_be_put_in(name: str) -> None:
    # Beside variables of the environment, "ALL" capabilities are dropped.
    variables = ("NCCL_", "GLOO_", "RAY_", "ALL")
    found = {word for word in capitals(parsed(name)) if not word.startswith(variables)}
    assert found == put_in(name)
