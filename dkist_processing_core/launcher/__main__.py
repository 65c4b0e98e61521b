"""`python -m dkist_processing_core.launcher`: one attempt of the task that the environment names."""

import sys

from dkist_processing_core.launcher import main

if __name__ == "__main__":
    sys.exit(main())
