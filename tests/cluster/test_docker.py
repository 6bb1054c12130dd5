"""The images and the compose file: linters, and what no linter knows."""

import copy
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.cluster.files import ROOT, parsed, tool

_SECRET = re.compile("token|password|secret|_key", re.IGNORECASE)

# Named otherwise than the marker of tests that need a GPU.
image = pytest.mark.parametrize(
    "target", ["cpu", "gpu"], ids=["image-cpu", "image-gpu"]
)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Instructions of the Dockerfile, continued lines joined."""
    text = (ROOT / "docker/Dockerfile").read_text()
    kept = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in "\n".join(kept).replace("\\\n", " ").splitlines() if line]


@pytest.fixture(scope="module")
def stages(lines: list[str]) -> dict[str, list[str]]:
    """By name: the instructions of each, of those that it is built on too."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if match := re.fullmatch(r"FROM (\S+) AS (\w+)", line):
            current = found[match[2]] = list(found.get(match[1], []))
        else:
            current.append(line)
    return found


def hadolint(file: Path) -> str:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", str(file)], capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    assert hadolint(ROOT / "docker/Dockerfile") == ""


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install gcc\n")
    assert {"DL3007", "DL3003"} <= set(hadolint(file).split())


def test_every_image_is_of_one_base_that_names_its_release(lines: list[str]) -> None:
    (base,) = [line for line in lines if line.startswith("ARG BASE=")]
    assert re.fullmatch(r"ARG BASE=python:3\.11\.\d+-slim-bookworm", base)
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert set(bases) == {"${BASE}", "cpu"}


@image
def test_an_image_runs_as_a_user_and_tells_its_health(
    stages: dict[str, list[str]], target: str
) -> None:
    users = [line.split()[1] for line in stages[target] if line.startswith("USER")]
    assert users[-1] == "1000"
    checks = [line for line in stages[target] if line.startswith("HEALTHCHECK")]
    assert len(checks) == 1
    (script,) = re.findall(r'"(docker/[^"]+)"', checks[0])
    assert (ROOT / script).stat().st_mode & 0o111


@image
def test_a_login_shell_finds_the_same_programs(
    stages: dict[str, list[str]], target: str, tmp_path: Path
) -> None:
    """As of Debian's /etc/profile, which sets the path anew and then reads
    /etc/profile.d."""
    (path,) = re.findall(r"ENV PATH=(\S+):\$PATH", "\n".join(stages[target]))
    (told,) = re.findall(r"echo .*? >/etc/profile.d/\w+.sh", "\n".join(stages[target]))
    file = tmp_path / "own.sh"
    subprocess.run(["sh", "-c", told.rpartition(">")[0] + f">{file}"], check=True)
    script = f'PATH=/usr/local/bin:/usr/bin; . {file}; echo "$PATH"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert shell.stdout.strip() == f"{path}:/usr/local/bin:/usr/bin"


def packages(stage: list[str]) -> Iterator[str]:
    """That apt installs, by name or from a list."""
    for line in stage:
        for listed in re.findall(r"xargs -a (\S+) apt-get install", line):
            yield from (ROOT / listed).read_text().split()
        for named in re.findall(
            r"apt-get install -y --no-install-recommends(.*?)&&", line
        ):
            yield from named.split()


@image
def test_no_compiler_or_header_is_shipped(
    stages: dict[str, list[str]], target: str
) -> None:
    shipped = set(packages(stages[target]))
    assert {"libturbojpeg0", "wget"} <= shipped
    assert not {p for p in shipped if p.endswith("-dev") or p in ("g++", "pkg-config")}
    built = set(packages(stages["builder"]))
    assert {"libopencv-dev", "g++"} <= built


def test_what_ffcv_is_built_with_has_its_library_in_the_image() -> None:
    """Debian names the library of a -dev package anew with each release."""
    shipped = (ROOT / "docker/apt-run.txt").read_text().split()
    built = (ROOT / "docker/apt-ffcv.txt").read_text().split()
    assert {"libopencv-dev", "libturbojpeg0-dev"} <= set(built)
    assert {"libopencv-core406", "libopencv-imgproc406", "libturbojpeg0"} <= set(
        shipped
    )


@pytest.mark.skipif(
    shutil.which("readelf") is None, reason="readelf is not installed (binutils)"
)
def test_ffcv_needs_no_other_library_of_opencv() -> None:
    found = importlib.util.find_spec("ffcv")  # to import it takes seconds
    if found is None or found.origin is None:
        pytest.skip("FFCV is not installed; docker/install.sh does it")
    (library,) = Path(found.origin).parent.glob("_libffcv*.so")
    told = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True
    )
    needed = set(re.findall(r"NEEDED.*\[lib(opencv_\w+|turbojpeg)\.so", told.stdout))
    assert needed == {"opencv_core", "opencv_imgproc", "turbojpeg"}


def test_python_packages_are_those_that_are_pinned(
    stages: dict[str, list[str]],
) -> None:
    pinned = [line for line in stages["builder"] if "constraints.txt" in line]
    assert [line.split()[0] for line in pinned] == ["COPY"]
    assert any("RUN" in line and "install.sh" in line for line in stages["builder"])
    for stage in stages.values():
        assert not any(re.search(r"\bpip3? install", line) for line in stage)
    script = (ROOT / "docker/install.sh").read_text()
    commands = re.findall(r"pip install(?:.*\\\n)*.*", script)
    assert commands
    assert all("--constraint docker/constraints.txt" in c for c in commands)


def test_no_instruction_holds_a_secret(lines: list[str]) -> None:
    settings = [line for line in lines if line.startswith(("ENV", "ARG"))]
    assert settings
    named = [n for line in settings for n in re.findall(r"(\w+)=", line)]
    assert not [n for n in named if _SECRET.search(n) or n.endswith("TOKEN")]


def test_an_image_gets_no_file_that_is_not_asked_for() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    assert not kept & {"data", "runs", ".git", ".venv", "tests"}


def test_all_that_is_copied_is_not_ignored(lines: list[str]) -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    for source in sources:
        top = source.partition("/")[0]
        assert top == "." or f"!{top}" in kept, source
        assert source == "." or list(ROOT.glob(source)), source


def compose_file() -> dict[str, Any]:
    return parsed("docker/compose.yaml")


def check(config: dict[str, Any]) -> None:
    """By the compose specification; merged keys are a matter of YAML."""
    PyCompose.from_yaml(yaml.safe_dump(config))


def test_the_compose_file_is_one() -> None:
    check(compose_file())


@pytest.mark.parametrize(
    ("key", "value"), [("shm_sise", "1gb"), ("stop_grace_period", "soon"), ("init", 3)]
)
def test_a_mistake_in_a_compose_file_is_found(key: str, value: Any) -> None:
    wrong = copy.deepcopy(compose_file())
    wrong["services"]["head"][key] = value
    with pytest.raises(ValueError, match=key if "sise" in key else "services.head"):
        check(wrong)


def test_the_compose_file_has_three_nodes_that_share_a_folder_and_a_token() -> None:
    config = compose_file()
    head, node = config["services"]["head"], config["services"]["node"]
    assert 1 + node["deploy"]["replicas"] == 3
    for service in (head, node):
        assert service["volumes"] == ["shared:/shared"]
        assert service["secrets"] == ["ray_token"]
        place = service["environment"]["RAY_AUTH_TOKEN_PATH"]
        assert place == "/run/secrets/ray_token"
        script = service["entrypoint"][0]
        assert (ROOT / script).stat().st_mode & 0o111
        assert "ports" not in service, "Ray is reached from inside alone"
    assert "shared" in config["volumes"]
    assert config["secrets"]["ray_token"] == {"environment": "RAY_AUTH_TOKEN"}
    assert "--num-cpus=0" in head["entrypoint"]


def test_a_node_waits_for_a_head_that_answers() -> None:
    services = compose_file()["services"]
    assert services["node"]["depends_on"]["head"]["condition"] == "service_healthy"
    assert services["head"]["healthcheck"]["test"][-2:] == ["docker/healthy.sh", "node"]
    assert services["node"]["entrypoint"][2] == "head", "the head's name on the network"
