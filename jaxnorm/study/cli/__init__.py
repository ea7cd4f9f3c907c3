"""The command line: flags, imports of a user's modules, what a driver does, exit codes."""
