"""`python -m dkist_processing_core.launcher`: one attempt of the task that the environment names."""

import sys

from dkist_processing_core.launcher import hold_back

if __name__ == "__main__":
    hold_back()
    # Imported only now: a signal that arrives during the import is handled afterwards.
    from dkist_processing_core.launcher import main

    sys.exit(main())
