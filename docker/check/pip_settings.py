"""Convert `pip config list` (stdin) to FOLDER/pip.conf for a build in a container.

Usage: python pip_settings.py FOLDER

Prints the volumes to mount, one `host:container:ro` per line: the file itself, and every folder and certificate that
it names. For an index in a folder, the parent is mounted, because its pages link to files next to it.
PIP_SETTINGS_LEFT_OUT lists settings to ignore, such as find-links.
"""

from __future__ import annotations

import ast
import configparser
import os
import sys
from pathlib import Path

NOT_IN_A_BUILD = {"user", "target", "prefix", "require-virtualenv", "cache-dir", "log"}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    config = configparser.ConfigParser(interpolation=None)
    volumes: dict[str, str] = {}
    left_out = NOT_IN_A_BUILD | set(os.environ.get("PIP_SETTINGS_LEFT_OUT", "").split())
    for line in sys.stdin:
        name, _, quoted = line.strip().partition("=")
        section, _, key = name.removeprefix(":env:.").rpartition(".")
        value = ast.literal_eval(quoted)
        if key in left_out or key == "config-file":
            continue
        if key == "cert":
            volumes[value] = value = "/run/pip-cert.pem"  # the original path may belong to a package in the image
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                shown = path.parent if key.endswith("index-url") else path
                volumes[str(shown)] = str(shown)
        config.setdefault(section or "global", {})
        config[section or "global"][key] = "\n".join(value.split())
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        config.write(file)
    volumes[str(folder / "pip.conf")] = "/etc/pip.conf"
    for host, container in volumes.items():
        print(f"{host}:{container}:ro")


if __name__ == "__main__":
    main()
