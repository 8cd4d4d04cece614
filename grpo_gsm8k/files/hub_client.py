"""Requests to the Hugging Face Hub end when nothing arrives."""

from __future__ import annotations

LONGEST_ANSWER_S = 120.0  # of a commit, which the hub checks before it answers


def limit_waits(commits: bool = False) -> None:
    """Let a request fail, and be repeated as the client does, when nothing arrives for HF_HUB_DOWNLOAD_TIMEOUT seconds.

    That is the limit of the client's downloads, 10 s unless it is set. Its other requests (lists of files, commits)
    have none: a hub that accepts connections and never answers would hold a run for ever. `commits` allows the time
    that a commit takes.
    """
    import httpx2  # lazy, both: most commands need no hub
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    seconds = float(huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT)
    timeout = httpx2.Timeout(max(seconds, LONGEST_ANSWER_S) if commits else seconds)

    def client() -> httpx2.Client:
        made = default_client_factory()
        made.timeout = timeout
        return made

    huggingface_hub.set_client_factory(client)
