"""One command, `hami`, with a sub-command a part."""
