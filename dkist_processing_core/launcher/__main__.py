"""`python -m dkist_processing_core.launcher`: one attempt of the task that the environment names."""

import sys

from dkist_processing_core.launcher import hold_back

if __name__ == "__main__":
    hold_back()
    # Only now: what comes while it is imported is heard afterwards.
    from dkist_processing_core.launcher import main

    sys.exit(main())
