"""`dkist-core runs`, `top`, `failures` and `collect`: the store of runs, read and kept."""
