"""`dkist-core runs`, `top`, `failures`, `usage` and `collect`: the store of runs, read and kept."""
