"""Print one setting of an image, one item per line.

Usage: buildah inspect --type image IMAGE | python setting.py NAME
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    config = json.load(sys.stdin)["Docker"]["config"]
    found = {
        "env": config["Env"],
        "entrypoint": config["Entrypoint"],
        "cmd": config["Cmd"],
        "user": [config["User"]],
        "workdir": [config["WorkingDir"]],
        "labels": [f"{name}={value}" for name, value in config["Labels"].items()],
        "healthcheck": config["Healthcheck"]["Test"],
        "volumes": sorted(config["Volumes"]),
    }
    print("\n".join(found[sys.argv[1]]))


if __name__ == "__main__":
    main()
