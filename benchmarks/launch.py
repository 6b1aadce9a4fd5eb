"""Runs a command that has to succeed and prints what it took as JSON: python -I -S launch.py LIMIT COMMAND...

A small process of its own, because what a process holds when it starts another counts towards the other's peak.
LIMIT is bytes of address space, as with `ulimit -v`; 0 for none. The command's own output is dropped.
"""

import json
import os
import resource
import sys
import time

began = time.perf_counter()
child = os.fork()
if child == 0:
    limit = int(sys.argv[1])
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
cost = {
    "seconds": time.perf_counter() - began,
    "processor_seconds": usage.ru_utime + usage.ru_stime,
    "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
}
print(json.dumps(cost))
sys.exit(os.waitstatus_to_exitcode(status) and 1)
