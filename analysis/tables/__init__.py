"""Tables: what stands in them is computed apart from how it is written."""
