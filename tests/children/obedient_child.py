"""A child for tests: does what the request says. Run as `python -m tests.children.obedient_child`."""

import os
import socket
import sys
import time
from typing import Any

from grpo_gsm8k.children.child_loop import serve


def handle(request: Any) -> Any:
    match request:
        case "sleep":
            time.sleep(600)
        case "spin":
            while True:
                pass
        case "allocate":
            return len(bytearray(4 << 30))
        case "exit":
            os._exit(7)
        case "raise":
            raise ValueError("bad input")
        case "print":
            print("noise", flush=True)
            return "printed"
        case ["connect", str(host), int(port)]:
            socket.create_connection((host, port), timeout=5).close()
            return "connected"
        case "environment":
            return sorted(os.environ)
        case "many files":
            return [os.open(__file__, os.O_RDONLY) for _ in range(1000)]
        case "pid":
            return os.getpid()
    return request


def prepare() -> Any:
    if "fail" in sys.argv:
        raise ImportError("cannot start")
    return handle


if __name__ == "__main__":
    serve(prepare)
