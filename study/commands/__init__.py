"""The command's commands: a file for each group of `study --help`."""
