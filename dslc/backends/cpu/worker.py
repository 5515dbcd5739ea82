"""A compile worker: reads requests as JSON lines, answers each with an object file. Started by `build.py`.

A process of its own keeps Numba out of the user's process, uses the other cores, and gives back all memory when it ends.
"""

from __future__ import annotations

import base64
import gc
import json
import sys
import time

from dslc.runtime.serve import serve

GARBAGE = 500_000  # objects, some 60 MiB: to look for cycles more often takes a sixth of all compile time


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing but answers may reach the pipe
    from dslc.backends.cpu import native

    gc.freeze()
    gc.disable()

    def answer(line: str) -> str:
        if gc.get_count()[0] > GARBAGE:
            gc.collect()
        request = json.loads(line)
        begin = time.perf_counter()
        try:
            code, symbol, _ = native.compile_object(request["source"], request["entry"], request["width"], order=request["order"])
            reply = {"key": request["key"], "object": base64.b64encode(code).decode(), "symbol": symbol}
        except Exception as error:  # the parent reports it with the kernel's source
            reply = {"key": request["key"], "error": f"{type(error).__name__}: {error}"}
        reply["seconds"] = time.perf_counter() - begin
        return json.dumps(reply)

    serve(answer, out)


if __name__ == "__main__":
    main()
