"""Every table and figure of the paper's Sec. 4."""
