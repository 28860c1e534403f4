"""Reads tars: headers, members, damage, links; WebDataset samples and their rows."""
