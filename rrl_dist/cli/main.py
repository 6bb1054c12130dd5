"""`rrl COMMAND ...`: each command is a Hydra application of its own."""

import sys
from difflib import get_close_matches
from importlib import import_module

from rrl_dist import __version__

COMMANDS = {
    "run": "every stage of an experiment, from images to a report",
    "prepare": "write a data set as .beton files for FFCV",
    "pretrain": "one training stage",
    "tune": "search of settings by robust accuracy",
    "finetune": "put a head on an encoder, and train it or both",
    "evaluate": "attack a classifier",
    "doctor": "what is wrong here, or with --cluster on any node, and how to mend it",
    "report": "tables and pictures of finished runs",
    "bench": "what a search of settings is worth, and how long AutoAttack takes",
    "submit": "a command as a job of a Ray cluster",
}


def main() -> None:
    """Entry point of the `rrl` script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return
    if arguments[0] == "--version":
        print(f"rrl_dist {__version__}")
        return
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1) or ["--help"]
        told = f"there is no command {name}; the nearest is rrl {near[0]}"
        print(f"rrl: {told}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"rrl {name}", *arguments[1:]]
    try:
        import_module(f"rrl_dist.cli.{name}").main()
    except KeyboardInterrupt:  # while torch is imported, which takes seconds
        sys.exit(130)


def _usage() -> str:
    lines = [f"  rrl {name:<9} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "rrl_dist: adversarially robust image encoders, pretrained without labels",
            "",
            *lines,
            "",
            "Settings follow as key=value, such as",
            "  rrl run experiment=demo seed=1",
            "rrl COMMAND --help lists the settings of a command.",
        ]
    )


if __name__ == "__main__":
    main()
