"""What is sent with a job."""

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.cli.app import CONFIGS
from rrl_dist.core.errors import UserError
from rrl_dist.submit.parcel import collect
from tests.composing import compose

LEFT_OUT = [str(one) for one in compose("submit")["upload"]["leave_out"]]
CODE = {"rrl_dist/data/views.py", "configs/data/digits.yaml", "mine.py"}
NOT_SENT = {
    ".git/config",
    ".venv/bin/python",
    "a/.venv/lib/x.py",
    "data/cifar10/train.bin",
    "runs/demo/model.safetensors",
    "mine/__pycache__/x.pyc",
    "betons/a.beton",
    ".env",
    "keys/me.pem",
    ".ssh/id_ed25519",
    ".netrc",
    ".aws/credentials",
}


def write(root: Path, names: set[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def unpacked(root: Path, folder: Path) -> dict[str, bytes]:
    collect(root, LEFT_OUT, 1).write(folder / "parcel.zip")
    with zipfile.ZipFile(folder / "parcel.zip") as parcel:
        return {name: parcel.read(name) for name in parcel.namelist()}


def test_code_is_sent_and_data_runs_and_secrets_are_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, CODE | NOT_SENT)
    assert unpacked(root, tmp_path) == {name: name.encode() for name in CODE}


def test_what_git_ignores_is_not_sent(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, CODE | {"weights/large.bin"})
    (root / ".gitignore").write_text("weights/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    assert set(unpacked(root, tmp_path)) == CODE | {".gitignore"}
    # A folder inside of a repository is one too.
    assert set(collect(root / "configs", [], 1).sizes) == {"data/digits.yaml"}


def test_a_file_that_was_removed_is_no_matter(tmp_path: Path) -> None:
    write(tmp_path, CODE)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    (tmp_path / "mine.py").unlink()
    assert set(collect(tmp_path, LEFT_OUT, 1).sizes) == CODE - {"mine.py"}


def test_this_project_is_small_and_whole() -> None:
    root = CONFIGS.parent
    sizes = collect(root, LEFT_OUT, 50).sizes
    assert {"rrl_dist/data/datasets.py", "configs/data/digits.yaml"} <= sizes.keys()
    assert not [n for n in sizes if n.startswith((".venv/", ".git/", "runs/"))]


def test_too_much_is_refused_with_what_is_large(tmp_path: Path) -> None:
    write(tmp_path, CODE)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "film.mp4").write_bytes(bytes(1_000_000))
    with pytest.raises(UserError) as refused:
        collect(tmp_path, LEFT_OUT, 3.5)
    told = str(refused.value)
    assert "\n" not in told
    assert "4 MB to send, more than upload.limit=3.5" in told
    assert "weights/ 3.0, film.mp4 1.0" in told
    # What is left out is not counted.
    assert collect(tmp_path, [*LEFT_OUT, "film.mp4"], 3.5).size < 3_500_000


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to send"):
        collect(tmp_path, LEFT_OUT, 1)


def test_equal_files_make_an_equal_parcel(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, CODE)
        collect(tmp_path / name, LEFT_OUT, 1).write(tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_can_be_run_can_be_run_there(tmp_path: Path) -> None:
    write(tmp_path / "a", {"go.sh", "read.txt"})
    (tmp_path / "a/go.sh").chmod(0o755)
    collect(tmp_path / "a", LEFT_OUT, 1).write(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as parcel:
        modes = {i.filename: i.external_attr >> 16 for i in parcel.infolist()}
    assert modes["go.sh"] & 0o111
    assert not modes["read.txt"] & 0o111


NAME = st.text("ab.", min_size=1, max_size=3).filter(lambda name: set(name) != {"."})


@given(
    paths=st.lists(st.lists(NAME, min_size=1, max_size=3), min_size=1, max_size=5),
    left=st.lists(NAME, max_size=2),
    rooted=st.booleans(),
)
@settings(max_examples=50)
def test_a_pattern_holds_for_all_that_lies_below(
    tmp_path_factory: pytest.TempPathFactory,
    paths: list[list[str]],
    left: list[str],
    rooted: bool,
) -> None:
    root = tmp_path_factory.mktemp("root")
    for parts in paths:
        file = root.joinpath(*parts)
        if not any(p.is_file() for p in file.parents) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
    files = [p.relative_to(root) for p in root.rglob("*") if p.is_file()]

    def out(file: Path) -> bool:
        return file.parts[0] in left if rooted else bool({*file.parts} & {*left})

    patterns = [f"/{name}" if rooted else name for name in left]
    expected = {str(file) for file in files if not out(file)}
    if expected:
        assert set(collect(root, patterns, 1).sizes) == expected
    else:
        with pytest.raises(UserError):
            collect(root, patterns, 1)


@contextmanager
def nobody() -> Iterator[None]:
    """Who may read everything may not for a while."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_file_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        write(root, CODE)
        (root / "mine.py").chmod(0)
        with nobody():
            with pytest.raises(UserError) as told:
                collect(root, LEFT_OUT, 1)
            assert collect(root, [*LEFT_OUT, "mine.py"], 1)
        assert str(told.value) == (
            "you may not read mine.py; change its mode, or add it to upload.leave_out"
        )
