"""`make audit`: what pip-audit says of the packages that the lock pins, or one line that says whom it could not ask.

python tests/advisories.py PIP-AUDIT OPTION ... exits with 0 where no vulnerability is known, with 1 where one is, and
where nobody could be asked: then nothing is known.
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
