"""Python code in a process of its own."""

import os
import subprocess
import sys


def output_of(code, **environment):
    """What `code` prints."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=os.environ | environment,
    ).stdout
