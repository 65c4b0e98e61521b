"""The programs that are compared, each run in a fresh interpreter; the peers' in an environment without the library."""
