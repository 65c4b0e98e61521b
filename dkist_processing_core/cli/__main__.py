"""The command line, started as `python -m dkist_processing_core.cli`."""

from dkist_processing_core.cli import main

main()
