"""`make audit`: what pip-audit reports on the packages of the lock, or one line that names the host without an answer.

python tests/known_vulnerabilities.py PIP-AUDIT OPTION ... exits with 0 if no vulnerability is known, with 1 if one is
known or if no database answered.
"""

import re
import subprocess
import sys


def outcome(command):
    """The exit status, and what to print."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0 or re.search(r"^Found \d+ known vulnerabilit", done.stderr, re.MULTILINE):
        return done.returncode, done.stdout + done.stderr
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    host = re.search(r"host='([^']+)', port=(\d+)", last)
    why = f"no answer from {host[1]}:{host[2]}" if host else last.rpartition("ERROR:pip_audit._cli:")[2]
    return 1, f"make audit: nothing is known of these packages: {why}\n"


if __name__ == "__main__":
    status, told = outcome(sys.argv[1:])
    (sys.stderr if status else sys.stdout).write(told)
    sys.exit(status)
