# SPDX-License-Identifier: Apache-2.0
"""`python -m retake.lab`."""

import sys

from retake.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
