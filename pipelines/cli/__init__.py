"""The edge of every command: flags, messages, exit codes, progress."""
