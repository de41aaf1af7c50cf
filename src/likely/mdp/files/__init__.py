"""MDPs from files of every format."""
