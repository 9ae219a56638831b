"""Starts a program as a service manager does that listens for it (sd_listen_fds(3)).

Usage: `python -m tests.support.passing 7,8 PROGRAM ARGUMENT…`: the descriptors become 3 and 4.
"""

import fcntl
import os
import sys

if __name__ == "__main__":
    # Out of the way first, so that none is in the place of another.
    held = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 64) for number in sys.argv[1].split(",")]
    for place, number in enumerate(held, 3):
        os.dup2(number, place)
        os.close(number)
    told = {
        "LISTEN_FDS": str(len(held)),
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDNAMES": ":".join("s" for _ in held),
    }
    os.execvpe(sys.argv[2], sys.argv[2:], {**os.environ, **told})  # noqa: S606  the program of a test
