"""Does by pygdbmi what debugger.rs does: FIRMWARE SOCKET START COUNTER COUNT; prints seven figures.

Each command is written as the package's documentation does, so its waiting is included."""
import json
import sys
import time

from pygdbmi.gdbcontroller import GdbController

firmware, path, start, counter, count = sys.argv[1:3] + [int(word) for word in sys.argv[3:]]
since = time.monotonic()
gdb = GdbController(["gdb-multiarch", "-nx", "-q", "--interpreter=mi3", "-iex", "set debuginfod enabled off", firmware])
gdb.write("-target-select remote " + path)
figures = [(time.monotonic() - since) * 1e3]


def stopped(responses):
    """Whether the stop came with the answer, or after it."""
    while not any(response["message"] == "stopped" for response in responses):
        responses = gdb.get_gdb_response(timeout_sec=10)


def measure(command, stops):
    since = time.monotonic()
    for _ in range(count):
        responses = gdb.write(command)
        if stops:
            stopped(responses)
    figures.append(count / (time.monotonic() - since))


gdb.write("-break-insert -t *%#x" % start)
stopped(gdb.write("-exec-continue"))
measure("-exec-step-instruction", True)
measure("-data-list-register-values x", False)
measure("-data-read-memory-bytes %#x 64" % counter, False)
measure("-data-read-memory-bytes %#x 4096" % counter, False)
gdb.write("-break-insert *%#x" % start)
measure("-exec-continue", True)
gdb.write("-break-delete")
gdb.write("-break-watch *(int*)%#x" % counter)
measure("-exec-continue", True)
gdb.write("-break-delete")
gdb.write("-target-disconnect")
gdb.exit()
print(json.dumps(figures))
