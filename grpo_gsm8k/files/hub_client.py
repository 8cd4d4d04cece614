"""Requests to the Hugging Face Hub: they end when nothing arrives, and their errors have one type."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.files.private import callers_umask

if TYPE_CHECKING:
    import httpx2

WAITS = ("connect", "read", "write", "pool")  # that httpx2 has limits for
LONGEST_ANSWER_S = 120.0  # of a commit, which the hub checks before it answers


def hub_snapshot(repo_id: str, **options: Any) -> Path:
    """Return the folder of `huggingface_hub.snapshot_download`. Raises LabError with the first line of the reason."""
    import httpx2  # lazy, both: local models and data need no hub client
    import huggingface_hub

    limit_waits()
    try:
        with callers_umask():
            return Path(huggingface_hub.snapshot_download(repo_id, **options))
    # The client lets errors of the connection through as they are; they are not OSErrors.
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise LabError((str(error).splitlines() or [type(error).__name__])[0]) from None


def limit_waits(commits: bool = False) -> None:
    """Let a request fail, and be repeated as the client does, when nothing arrives for HF_HUB_DOWNLOAD_TIMEOUT seconds.

    That is the limit of the client's downloads, 10 s unless it is set. Its other requests (lists of files, commits)
    have none: a hub that accepts connections and never answers would hold a run for ever. `commits` allows the time
    that a commit takes.
    """
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    seconds = float(huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT)
    longest = max(seconds, LONGEST_ANSWER_S) if commits else seconds

    def bound(request: httpx2.Request) -> None:
        # At the request, because some of the client's functions ask for no limit by name.
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {wait: asked.get(wait) or longest for wait in WAITS}

    def client() -> httpx2.Client:
        made = default_client_factory()
        made.event_hooks["request"].append(bound)
        return made

    huggingface_hub.set_client_factory(client)
