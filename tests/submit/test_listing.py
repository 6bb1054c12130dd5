"""What is listed of a folder, and what of that is told and not sent."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.submit.parcel import Parcel, collect


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *words], cwd=root, check=True)


def remark(parcel: Parcel) -> str:
    """The line of what is not sent."""
    (line,) = [line for line in parcel.remarks() if line.startswith("not sent: ")]
    return line


def refused(root: Path, *leave_out: str) -> str:
    with pytest.raises(UserError) as told:
        collect(root, leave_out, 1)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One that ignores secret.bin, which is there."""
    root = tmp_path / "root"
    write(root, "a.py", "secret.bin")
    (root / ".gitignore").write_text("*.bin\n")
    git(root, "init", "-q")
    return root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_repository_of_someone_else_is_not_read_as_a_plain_folder(
    repository: Path,
) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345)
    told = refused(repository)
    assert f"git does not list {repository}: detected dubious ownership" in told
    mend = f"git config --global --add safe.directory {repository}"
    assert told.endswith(f"; run {mend}")


def test_a_damaged_repository_is_told_with_gits_reason(repository: Path) -> None:
    (repository / ".git/index").write_text("x")
    told = refused(repository)
    assert "index file smaller than expected; mend it until git status works" in told


def test_what_git_says_is_read_in_any_language(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    shutil.rmtree(repository / ".git")
    assert "secret.bin" in collect(repository, [], 1).sizes


def test_a_repository_is_not_sent_without_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "is not installed; install git" in refused(repository)
    shutil.rmtree(repository / ".git")
    assert "secret.bin" in collect(repository, [], 1).sizes


def test_home_and_what_it_lies_in_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "users/me"
    write(home / "project", "a.py")
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "link").symlink_to(home)
    for root in (home, home.parent, Path("/"), tmp_path / "link"):
        assert "is your home folder, or has it inside" in refused(root)
    assert [*collect(home / "project", [], 1).sizes] == ["a.py"]
    assert "is no folder" in refused(home / "nowhere")


@pytest.mark.parametrize("in_git", [True, False])
def test_a_link_is_sent_as_its_file_or_told(tmp_path: Path, in_git: bool) -> None:
    root = tmp_path / "real"
    write(root, "a.py", "sub/b.py", ".env")
    write(tmp_path, "outside.txt", "elsewhere/c.py")
    for name, target in {
        "link.py": "a.py",
        "sub/up.py": "../a.py",
        "twice.py": "link.py",
        "absolute.py": f"{root}/sub/b.py",
        "out.txt": "../outside.txt",
        "far": "../elsewhere",
        "folder": "sub",
        "broken": "nothing",
        "loop": "loop",
        "settings": ".env",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    if in_git:
        git(root, "init", "-q")
    # The folder itself may be given by a link.
    (tmp_path / "given").symlink_to(root)
    parcel = collect(tmp_path / "given", [".env", ".git"], 1)
    parcel.write(tmp_path / "parcel.zip")
    with zipfile.ZipFile(tmp_path / "parcel.zip") as packed:
        sent = {name: packed.read(name).decode() for name in packed.namelist()}
    assert sent == {
        "a.py": "a.py",
        "sub/b.py": "sub/b.py",
        "link.py": "a.py",
        "sub/up.py": "a.py",
        "twice.py": "a.py",
        "absolute.py": "sub/b.py",
    }
    pipe = {} if in_git else {"neither files nor folders": ["pipe"]}  # git has no pipes
    assert parcel.unsent == pipe | {
        "links out of the folder": ["far", "out.txt"],
        "links to folders": ["folder"],
        "broken links": ["broken", "loop"],
        "links to what is not sent": ["settings"],
    }
    assert "links out of the folder (far, out.txt)" in remark(parcel)


def test_what_git_ignores_is_not_sent_by_a_link(repository: Path) -> None:
    (repository / "weights").symlink_to("secret.bin")
    parcel = collect(repository, [".git"], 1)
    assert set(parcel.sizes) == {"a.py", ".gitignore"}
    assert remark(parcel) == "not sent: links to what is not sent (weights)"


def test_a_file_in_a_folder_that_became_a_link_is_not_sent(repository: Path) -> None:
    write(repository, "sub/b.py")
    git(repository, "add", "-A")
    (repository / "sub").rename(repository.parent / "moved")
    (repository / "sub").symlink_to("../moved")
    parcel = collect(repository, [".git"], 1)
    assert "sub/b.py" not in parcel.sizes
    assert "links out of the folder (sub, sub/b.py)" in remark(parcel)


def test_repositories_inside_of_one_are_told(repository: Path) -> None:
    for name in ("known", "new"):
        write(repository / name, "c.py")
        git(repository / name, "init", "-q")
        git(repository / name, "add", "-A")
        git(repository / name, "commit", "-qm", "x")
    git(repository, "-c", "advice.addEmbeddedRepo=false", "add", "known")
    parcel = collect(repository, [".git"], 1)
    assert set(parcel.sizes) == {"a.py", ".gitignore"}
    assert remark(parcel) == "not sent: repositories inside of it (known, new)"
    assert parcel == collect(repository, [".git"], 1)
    assert collect(repository, [".git", "known", "new"], 1).unsent == {}


def test_a_few_are_named_and_the_others_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    for i in range(5):
        (tmp_path / f"l{i}").symlink_to("nothing")
    assert remark(collect(tmp_path, [], 1)) == (
        "not sent: broken links (l0, l1, l2 and 2 more)"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
@pytest.mark.parametrize("in_git", [True, False])
def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path, in_git: bool) -> None:
    root = tmp_path / "root"
    write(root, "a.py")
    with open(os.fsencode(root) + b"/caf\xe9.py", "wb") as file:
        file.write(b"x")
    if in_git:
        git(root, "init", "-q")
    told = refused(root, ".git")
    assert "the name of 'caf\\udce9.py' is not UTF-8; rename the file" in told
    assert told.isascii()
    # The hint that it gives is right.
    assert [*collect(root, [".git", "caf?.py"], 1).sizes] == ["a.py"]


@pytest.mark.parametrize("name", ["é.py", "a b.py", "new\nline.py", "-x", "ab:c/d.py"])
def test_other_names_are_sent_as_they_are(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    write(root, name)
    collect(root, [], 1).write(tmp_path / "parcel.zip")
    with zipfile.ZipFile(tmp_path / "parcel.zip") as packed:
        packed.extractall(tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / name).read_text() == name


UNSAFE = ("back\\slash.py", "c:drive.py")


def test_names_that_ray_does_not_unpack_are_told(tmp_path: Path) -> None:
    write(tmp_path, "a.py", *UNSAFE)
    parcel = collect(tmp_path, [], 1)
    assert [*parcel.sizes] == ["a.py"]
    assert remark(parcel) == (
        "not sent: names that Ray does not unpack (back\\slash.py, c:drive.py)"
    )


@pytest.mark.slow
def test_ray_unpacks_what_is_sent_and_no_other_names(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import unzip_package

    sent = ("a.py", "sub/é b.py", "ab:c.py", "new\nline.py", "~x", "-y")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for name in (*sent, *UNSAFE):
            packed.writestr(name, name)
    unzip_package(str(tmp_path / "all.zip"), str(tmp_path / "out"), False, False)
    files = [one for one in (tmp_path / "out").rglob("*") if one.is_file()]
    assert {str(one.relative_to(tmp_path / "out")) for one in files} == {*sent}
    (tmp_path / "root").mkdir()
    write(tmp_path / "root", *sent, *UNSAFE)
    assert set(collect(tmp_path / "root", [], 1).sizes) == {*sent}


def test_without_the_package_the_clusters_own_is_told(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "project/rrl_dist/__init__.py")
    (line,) = collect(tmp_path, [], 1).remarks()
    assert line == f"{tmp_path} has no rrl_dist package to send: the cluster's own runs"
    assert collect(tmp_path / "project", [], 1).remarks() == []
