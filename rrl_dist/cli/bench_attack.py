"""`rrl bench attack`: AutoAttack's time beside its authors' code, as JSON and a
table."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrl_dist.cli.app import absolute_folders, run_folder
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import environment, open_run
from rrl_dist.core.storage import write_bytes, write_json
from rrl_dist.evaluate.attack_bench import NORMS, THEIRS, Case, compare, sentence
from rrl_dist.evaluate.images import chosen_images, pixels
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import load_subject
from rrl_dist.report.tables import Table
from rrl_dist.training.build import build


def bench_attack(config: dict[str, Any], config_yaml: str) -> None:
    """Attack with both, and write `attack.json` and `attack.md`."""
    terminal = Terminal()
    config = absolute_folders(config)
    folder, own = run_folder(config), config["attack"]
    if own["artefact"] is None:
        raise UserError(
            "attack.artefact is not set; give a folder with model.safetensors, "
            "timm:NAME, torchvision:NAME or MODULE:FUNCTION"
        )
    case = _case(config)
    about = {"command": "rrl bench attack", "model": str(own["artefact"])}
    about["data set"] = config["data"]["name"]
    before = torch.get_num_threads()
    with open_run(folder, about, config_yaml):
        torch.set_num_threads(int(own["threads"]))
        try:
            precisions = [str(name) for name in own["precisions"]]
            found = compare(case, precisions, int(own["rounds"]), terminal.notify)
        finally:
            torch.set_num_threads(before)
        _write(folder, {**_about(own, case), "contenders": found}, terminal)


def _case(config: Mapping[str, Any]) -> Case:
    """The model, and the first images of the test split in the order of evaluations."""
    own = config["attack"]
    job = {"data": config["data"], "split": "test", "limit": own["images"]}
    images = chosen_images(job)
    x = pixels(images, np.arange(len(images)))
    source = Source(str(own["artefact"]), folder=str(Path.cwd())).absolute()
    ball = build(config["ball"])
    if ball.norm not in NORMS:
        raise UserError(f"ball={ball.label()}: choose one of {', '.join(NORMS)}")
    return Case(
        model=load_subject(source).module.eval(),
        x=x,
        y=torch.from_numpy(images.labels.copy()),
        ball=ball,
        version=str(own["version"]),
        seed=int(config["seed"]),
        batch_size=int(own["batch_size"]),
    )


def _about(own: Mapping[str, Any], case: Case) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "environment": environment(),
        "model": str(own["artefact"]),
        "ball": case.ball.label(),
        "version": case.version,
        "images": len(case.x),
        "batch_size": case.batch_size,
        "threads": int(own["threads"]),
    }


def _write(folder: Path, found: dict[str, Any], terminal: Terminal) -> None:
    write_json(folder / "attack.json", found)
    table = _table(found)
    write_bytes(folder / "attack.md", f"{table.to_markdown()}\n".encode())
    terminal.console.print(f"\n{table.to_text()}", markup=False)
    terminal.notify(str(folder / "attack.json"))


def _table(found: Mapping[str, Any]) -> Table:
    header = ("code", "seconds", "of theirs", "right", "forward", "backward")
    rows = []
    for name, told in found["contenders"].items():
        run, ratio = told["runs"][0], told.get("ratio")
        rows.append(
            (
                name if name == THEIRS else f"autoattack, {name}",
                ", ".join(f"{each['seconds']:.1f}" for each in told["runs"]),
                "1" if ratio is None else f"{ratio['median']:.2f}",
                f"{run['robust']}",
                f"{run['forward']:,.0f}",
                f"{run['backward']:,.0f}",
            )
        )
    return Table(header, tuple(rows), sentence(found), 1)
