"""`python -m dkist_processing_core.launcher`: one attempt of the task that the environment names."""

import sys

from dkist_processing_core.launcher.termination_requests import block_signals

if __name__ == "__main__":
    block_signals()
    # Imported only now: a signal that arrives during the import is handled afterwards.
    from dkist_processing_core.launcher.launch import main

    sys.exit(main())
