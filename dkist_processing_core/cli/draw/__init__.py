"""Everything that is drawn on a terminal: runs, events and graphs."""
