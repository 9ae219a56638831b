"""File systems that one process alone sees, where this machine lets a test make them."""

import shutil
import subprocess
from typing import Final

TOOLS: Final = ("unshare", "nsenter", "mount")
#: A folder of its own for one process and what it starts: $0 is the folder, and the rest the command.
MOUNTED: Final = 'mount -t tmpfs -o size=64k,mode=700 none "$0" && exec "$@"'
#: The same folder as that of others, which takes no writes from it.
READ_ONLY: Final = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def cannot_mount() -> str | None:
    """Why no file system can be made here, None where one can."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"this machine has no {', '.join(missing)} (util-linux)"
    command = ["unshare", "--mount", "sh", "-c", MOUNTED, "/mnt", "true"]
    tried = subprocess.run(command, capture_output=True, check=False)
    return None if tried.returncode == 0 else "this machine does not let this user make a mount namespace"
