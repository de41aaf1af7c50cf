"""Pages, charts, sheets and tables of results."""
