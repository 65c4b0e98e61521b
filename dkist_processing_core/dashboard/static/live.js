// Keeps a page live.
