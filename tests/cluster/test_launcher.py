"""The files for Ray's cluster launcher are ones that it and the clouds take."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import ray.autoscaler
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import ROOT, capitals, parsed, put_in, schema

CLOUDS = ["aws", "gcp"]
FILES = [*CLOUDS, "onprem"]
# Words in capitals that nobody has to change.
_OURS = {"LICENSE", "README", "CPU", "GPU"}
_THEIRS = {"PERSISTENT", "SPOT", "DELETE", "TERMINATE"}

launcher = pytest.mark.parametrize("name", FILES)


def config_of(name: str) -> dict[str, Any]:
    return parsed(f"cluster/{name}.yaml")


def check(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it asks a cloud for anything."""
    folder = Path(ray.autoscaler.__file__).parent
    jsonschema.validate(config, json.loads((folder / "ray-schema.json").read_text()))
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@launcher
def test_ray_takes_the_file(name: str) -> None:
    prepared = check(config_of(name))
    workers = [t for t in prepared["available_node_types"].values() if t["max_workers"]]
    assert workers


@launcher
def test_ray_refuses_a_key_that_it_does_not_know(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute'"):
        check({**config_of(name), "idle_timeout_minute": 5})


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_refuses_more_nodes_than_there_may_be(name: str) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        check({**config_of(name), "max_workers": 1})


@pytest.mark.parametrize("key", ["IMAGE", "PROJECT"])
def test_what_to_put_in_is_found_where_it_stands(key: str) -> None:
    assert key in capitals({"a": [f"{key}", {"b": f"x {key} $HOME /{key}D"}]})


@launcher
def test_the_head_of_a_file_names_all_that_is_to_be_put_in(name: str) -> None:
    asked = put_in(f"cluster/{name}.yaml")
    assert asked
    assert capitals(config_of(name)) - _OURS - _THEIRS == asked


@launcher
def test_what_is_sent_exists_and_is_small(name: str) -> None:
    """Ray reads all of each folder at every start, before anything is left out."""
    mounts = config_of(name)["file_mounts"]
    inside = [local for local in mounts.values() if not local.startswith("~")]
    assert inside
    total = 0
    for local in inside:
        place = ROOT / local
        assert place.exists(), local
        files = [place] if place.is_file() else place.rglob("*")
        total += sum(f.stat().st_size for f in files if f.is_file())
    assert total < 50e6


@launcher
def test_what_is_sent_is_what_the_set_up_reads(name: str) -> None:
    sent = {Path(remote).name for remote in config_of(name)["file_mounts"]}
    needed = {"rrl_dist", "configs", "cluster", "docker", "pyproject.toml"}
    assert {*needed, "README.md", "LICENSE", "auth_token"} == sent


@launcher
def test_commands_call_files_that_are_sent_and_can_be_run(name: str) -> None:
    config = config_of(name)
    starts = (*config["head_start_ray_commands"], *config["worker_start_ray_commands"])
    called = [
        word.removeprefix("~/rrl_dist/")
        for command in starts
        for word in command.split()
        if word.startswith("~/rrl_dist/") and ".venv" not in word
    ]
    assert len(called) >= 2
    for path in called:
        assert os.access(ROOT / path, os.X_OK), path


@launcher
def test_nothing_listens_outside(name: str) -> None:
    """cluster/node.sh keeps the dashboard to the machine; no option here undoes it."""
    config = config_of(name)
    text = json.dumps(config)
    assert "dashboard-host" not in text
    assert "DASHBOARD_HOST" not in text
    assert "node.sh head" in config["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in text


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_machines_are_watched_and_the_head_is_none(name: str) -> None:
    config = config_of(name)
    types = config["available_node_types"]
    assert not is_spot(types[config["head_node_type"]])
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert [n for n, t in types.items() if is_spot(t)] == ["gpu_spot"]
    assert types["gpu_spot"]["min_workers"] > 0, "training waits for none but these"
    assert any(f"notice.sh {name}" in c for c in config["worker_start_ray_commands"])


def is_spot(node_type: dict[str, Any]) -> bool:
    node = node_type["node_config"]
    model = node.get("scheduling", {}).get("provisioningModel")
    return model == "SPOT" or "InstanceMarketOptions" in node


@pytest.fixture(scope="module")
def run_instances() -> Any:
    """What EC2 takes when a machine is asked for, as AWS's own library has it."""
    ec2 = botocore.session.get_session().get_service_model("ec2")
    return ec2.operation_model("RunInstances").input_shape


def wrong_for_ec2(node: dict[str, Any], shape: Any) -> str:
    # Ray adds the counts.
    asked = {**node, "MinCount": 1, "MaxCount": 1}
    return ParamValidator().validate(asked, shape).generate_report()


def test_ec2_takes_the_machines(run_instances: Any) -> None:
    for node_type in config_of("aws")["available_node_types"].values():
        assert wrong_for_ec2(node_type["node_config"], run_instances) == ""


def test_ec2_refuses_a_misspelt_key(run_instances: Any) -> None:
    node = config_of("aws")["available_node_types"]["gpu_spot"]["node_config"]
    wrong = {**node, "InstanceMarketOptions": {"Markettype": "spot"}}
    assert "Markettype" in wrong_for_ec2(wrong, run_instances)


def test_compute_engine_takes_the_machines() -> None:
    for node_type in config_of("gcp")["available_node_types"].values():
        jsonschema.validate(node_type["node_config"], schema("compute-instance.json"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preemptable", True),
        ("provisioningModel", "SPOTTY"),
        ("automaticRestart", "no"),
    ],
)
def test_compute_engine_refuses_what_it_does_not_know(key: str, value: Any) -> None:
    node = config_of("gcp")["available_node_types"]["gpu_spot"]["node_config"]
    wrong = {**node, "scheduling": {**node["scheduling"], key: value}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema("compute-instance.json"))
