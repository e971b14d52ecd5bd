"""Many trials: study files, planning, Ray, tracking, and the command line."""
