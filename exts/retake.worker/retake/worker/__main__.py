# SPDX-License-Identifier: Apache-2.0
"""`python -m retake.worker …` is `retake worker …`."""

import sys

from retake.core.errors import RetakeError
from retake.worker.cli import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RetakeError as error:
        print(f"retake worker: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
