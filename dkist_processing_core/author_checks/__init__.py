"""The values that an author may pass to a workflow, and an error message of one sentence for every other value."""
